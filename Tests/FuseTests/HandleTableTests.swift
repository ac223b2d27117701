import Glibc
import HSMSystem
import Testing

@testable import HSMFuse

/// Numbers of open files (`fh`), which the kernel sends back.
@Suite struct HandleTableTests {
    private final class File: Sendable {}
    private let table = HandleTable<File>()

    private func error(_ number: UInt64) -> Int32 {
        do throws(Errno) {
            _ = try table.find(number)
            return 0
        } catch { return error.rawValue }
    }

    @Test("A number leads to its file until the file is closed, and never again")
    func life() throws {
        let files = (0..<100).map { _ in File() }
        let numbers = try files.enumerated().map { try table.insert($1, [], of: UInt64($0 * 7)) }
        #expect(Set(numbers).count == 100)
        for (file, number) in zip(files, numbers) { #expect(try table.find(number) === file) }
        for (file, number) in zip(files, numbers) { #expect(table.remove(number) === file) }
        // The places are used again, the numbers are not.
        let later = try files.enumerated().map { try table.insert($1, [], of: UInt64($0 * 7)) }
        #expect(Set(later).isDisjoint(with: numbers))
        for number in numbers {
            #expect(error(number) == ESTALE)
            #expect(table.remove(number) == nil)
        }
        for (file, number) in zip(files, later) { #expect(try table.find(number) === file) }
    }

    @Test("Numbers that were not given out are stale")
    func forged() throws {
        #expect(error(0) == ESTALE)
        let number = try table.insert(File(), .cached, of: 3)
        for bit in 0..<56 { #expect(error(number ^ 1 << UInt64(bit)) == ESTALE) }
        for number in [0, 1, .max, 1 << 63, 0x7fff_ffff_f000] as [UInt64] { #expect(error(number) == ESTALE) }
        #expect(error(number) == 0)
    }

    @Test("A number says how its file was opened")
    func mode() throws {
        let number = try table.insert(File(), [.cached, .synchronous, .synchronousData], of: 3)
        #expect(OpenMode(rawValue: UInt8(number >> 56)) == [.cached, .synchronous, .synchronousData])
        #expect(number >> 56 & UInt64(O_ACCMODE) == O_RDONLY)
    }
}
