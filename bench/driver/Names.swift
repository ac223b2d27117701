import Glibc
import HSMSystem

/// Workloads whose cost is that of names and attributes.
enum Names {
    static func openReadClose(_ path: String, count: Int) throws -> [String: Double] {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let start = seconds()
        for _ in 0..<count {
            let file = try check { open(path, O_RDONLY | O_CLOEXEC) }
            _ = try check { read(file, &buffer, buffer.count) }
            close(file)
        }
        return ["seconds": (seconds() - start) / Double(count)]
    }

    static func makeStatRemove(_ directory: String, count: Int) throws -> [String: Double] {
        let names = (0..<count).map { "\(directory)/file-\($0)" }
        func timed(_ body: (String) throws -> Void) rethrows -> Double {
            let start = seconds()
            for name in names { try body(name) }
            return (seconds() - start) / Double(count)
        }
        let create = try timed { name in
            close(try check { open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644) })
        }
        var status = stat()
        let look = try timed { name in _ = try check { lstat(name, &status) } }
        let remove = try timed { name in _ = try check { unlink(name) } }
        return ["create_seconds": create, "stat_seconds": look, "unlink_seconds": remove]
    }

    static func walk(_ directory: String) throws -> [String: Double] {
        let start = seconds()
        var entries = 0
        var waiting = [directory]
        while let path = waiting.popLast() {
            guard let stream = opendir(path) else { throw Errno(rawValue: errno) }
            defer { closedir(stream) }
            while let entry = readdir(stream) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name == "." || name == ".." { continue }
                var status = stat()
                let isFound = try check { fstatat(dirfd(stream), name, &status, AT_SYMLINK_NOFOLLOW) } == 0
                entries += isFound ? 1 : 0
                if status.st_mode & S_IFMT == S_IFDIR { waiting.append("\(path)/\(name)") }
            }
        }
        return ["seconds": seconds() - start, "entries": Double(entries)]
    }
}
