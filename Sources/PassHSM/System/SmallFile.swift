import CLinux
import Glibc

/// Reads and replaces whole small files: those of /proc and /sys, and this program's own.
package enum SmallFile {
    /// The content, up to `limit` bytes.
    package static func read(_ path: BytePath, limit: Int = 1 << 20) throws(Errno) -> [UInt8] {
        let file = try path.withCString { name throws(Errno) in
            try Descriptor.open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        }
        // pread(2) will not do: files of /proc are answered in pieces.
        return try file.readToEnd(limit: limit)
    }

    /// The content as text, without white space at both ends; nil when the file cannot be read.
    package static func text(_ path: String) -> String? {
        guard let bytes = try? read(BytePath(path)) else { return nil }
        return String(decoding: bytes, as: UTF8.self).trimmed
    }

    /// Replaces `name` in `folder` atomically: readers see either the old content or the new.
    package static func replace(_ name: String, in folder: Descriptor, with content: [UInt8]) throws(Errno) {
        let temporary = name + ".new"
        let file = try Descriptor.open(
            at: folder.raw, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
        var done = 0
        while done < content.count {
            done += try check {
                content[done...].withUnsafeBytes { Glibc.write(file.raw, $0.baseAddress, $0.count) }
            }
        }
        _ = try check { renameat(folder.raw, temporary, folder.raw, name) }
    }
}

extension StringProtocol {
    /// Without white space at both ends.
    package var trimmed: String {
        guard let first = firstIndex(where: { !$0.isWhitespace }), let last = lastIndex(where: { !$0.isWhitespace })
        else { return "" }
        return String(self[first...last])
    }
}
