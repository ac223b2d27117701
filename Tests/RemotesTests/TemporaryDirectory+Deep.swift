import CLinux
import Glibc
import HSMSystem
import TestSupport
import Testing

extension TemporaryDirectory {
    /// Makes `count` directories inside each other, and the file `name` with `content` in the last one.
    ///
    /// - Returns: the directories' inode numbers.
    @discardableResult func makeDeep(_ count: Int, component: [UInt8], file name: [UInt8], content: [UInt8]) throws
        -> Set<UInt64>
    {
        var inodes: Set<UInt64> = []
        var directory = try Descriptor.openTop(Array(path.utf8))
        for _ in 0..<count {
            try withName(component) { text throws(Errno) in _ = try check { mkdirat(directory.raw, text, 0o755) } }
            directory = try Descriptor.openDirectory(at: directory, component)
            inodes.insert(UInt64(try directory.stat().st_ino))
        }
        let file = try withName(name) { text throws(Errno) in
            try Descriptor.open(at: directory.raw, text, O_CREAT | O_WRONLY, mode: 0o644)
        }
        let count = content.withUnsafeBytes { write(file.raw, $0.baseAddress, $0.count) }
        #expect(count == content.count)
        return inodes
    }
}

/// Runs `body` on a thread of its own as a user who owns nothing: setfsuid(2) is the thread's alone, and takes the
/// capabilities on files with it.
func withoutPrivilege<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async rethrows -> Result
{
    let pool = BlockingPool(name: "nobody", limit: 1)
    return try await withTaskExecutorPreference(pool) {
        setfsuid(65534)
        defer { setfsuid(0) }
        return try await body()
    }
}
