import CLinux
import Glibc

extension Descriptor {
    /// read(2) from the current position to the end, or to `limit` bytes. Works on pipes too.
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

    /// Opens `path` with O_PATH; a symlink at its end is not followed.
    package static func openPath(_ path: UnsafePointer<CChar>) throws(Errno) -> Descriptor {
        try open(path, PASSHSM_O_PATH | O_NOFOLLOW)
    }
}
