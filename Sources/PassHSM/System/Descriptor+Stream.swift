import CLinux
import Glibc

extension Descriptor {
    /// read(2) from the descriptor's position, or a pipe, to the end; at most `limit` bytes.
    package func readToEnd(limit: Int = 1 << 20) throws(Errno) -> [UInt8] {
        var content = [UInt8]()
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        while content.count < limit {
            let count = try buffer.withMutableBytes { bytes throws(Errno) in
                try check { Glibc.read(raw, bytes.baseAddress, bytes.count) }
            }
            if count == 0 { break }
            content.append(contentsOf: buffer[..<count])
        }
        return Array(content.prefix(limit))
    }

    /// O_PATH on `path` itself, also where it is a symlink.
    package static func openPath(_ path: UnsafePointer<CChar>) throws(Errno) -> Descriptor {
        try open(path, PASSHSM_O_PATH | O_NOFOLLOW)
    }
}
