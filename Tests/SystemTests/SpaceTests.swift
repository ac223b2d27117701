import Glibc
import HSMSystem
import SystemPackage
import Testing

@Suite struct SpaceTests {
    @Test(arguments: [0, 1, 1 << 30, 1 << 43, 1 << 62, Int.max - 1, .max])
    func `the content of a file is freed, however large its size is said to be`(size: Int) throws {
        var name = Array("/var/tmp/passhsm-test.XXXXXX".utf8CString)
        let file = Descriptor(owning: mkstemp(&name))
        unlink(name)
        try [UInt8](repeating: 1, count: 1 << 20).withUnsafeBytes { try file.write($0, at: 0) }
        do throws(Errno) {
            try file.freeContent(size: size)
            #expect(size == 0 || size == 1 || (try? file.stat().st_blocks) == 0)
        } catch {
            #expect(error.rawValue == EFBIG && size > 1 << 40)
        }
    }

    @Test
    func `zeros are written over data, and leave a hole where there is one`() throws {
        var name = Array("/var/tmp/passhsm-test.XXXXXX".utf8CString)
        let file = Descriptor(owning: mkstemp(&name))
        unlink(name)
        let unit = 65_536
        try file.truncate(to: 10 * unit - 100)
        try [UInt8](repeating: 7, count: unit).withUnsafeBytes { try file.write($0, at: 3 * unit) }
        var bytes = [UInt8](repeating: 0, count: 10 * unit - 100)
        bytes[6 * unit + 9] = 1
        bytes[8 * unit - 1] = 2
        try bytes.withUnsafeBytes { try file.writeKeepingHoles($0, at: 0, unit: unit) }
        var found = [UInt8](repeating: 9, count: 11 * unit)
        let count = try found.withUnsafeMutableBytes { try file.read(into: $0, at: 0) }
        #expect(found[..<count] == bytes[...])
        try file.fsync()
        #expect(try file.stat().st_blocks <= 4 * unit / 512)
        #expect(try file.seekData(from: 8 * unit) == nil)
    }
}
