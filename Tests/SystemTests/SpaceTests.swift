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
}
