import HSMSystem

/// The facts about one file: the answer of `passhsm state`, and the value of the mount's virtual attribute
/// `passhsm.state`.
package struct StateReport: Codable, Sendable, Equatable {
    /// The largest count of reported ranges.
    package static let maximumRanges = 1000

    /// The name of the virtual extended attribute. The mount answers it, and does not list it (listxattr(2)).
    package static let attribute = "passhsm.state"

    /// The path of the request. Empty in the attribute's value: the mount does not know by which name it was reached.
    package var path: BytePath
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `character` or `block`.
    package var kind: String
    /// `local`, `dual`, `partial` or `offline`.
    package var state: String
    /// `dirty`, `pinned`, `stale`, `lost`, `error`.
    package var flags: [String]
    /// Logical size in bytes.
    package var size: Int
    /// Count of bytes that are present locally.
    package var presentBytes: Int
    /// The present ranges, ascending: pairs of the first byte and the byte after the last.
    package var ranges: [[Int]]
    /// The file has more ranges than ``maximumRanges``.
    package var rangesTruncated: Bool
    /// Nil for a file without a remote copy. Bytes that are not UTF-8 are coded as ``ArgumentText`` does.
    package var remoteKey: String?
    package var remoteVersion: String?
    /// In bytes; nil for a file without a residency map.
    package var granuleSize: Int?
    package var lastError: String?
    /// Another message for the user, about the file or about the whole lower directory.
    package var warning: String?

    /// - Parameter ranges: ascending; cut to ``maximumRanges``.
    package init(
        path: BytePath = BytePath([]), kind: String, state: String, flags: [String] = [], size: Int, presentBytes: Int,
        ranges: [Range<Int>] = [], remoteKey: [UInt8]? = nil, remoteVersion: [UInt8]? = nil, granuleSize: Int? = nil,
        lastError: String? = nil
    ) {
        self.path = path
        self.kind = kind
        self.state = state
        self.flags = flags
        self.size = size
        self.presentBytes = presentBytes
        self.ranges = ranges.prefix(Self.maximumRanges).map { [$0.lowerBound, $0.upperBound] }
        rangesTruncated = ranges.count > Self.maximumRanges
        self.remoteKey = remoteKey.map(ArgumentText.encode)
        self.remoteVersion = remoteVersion.map(ArgumentText.encode)
        self.granuleSize = granuleSize
        self.lastError = lastError
    }

    /// ``kind`` for the file type bits of `mode` (stat(2)).
    package static func kind(ofMode mode: UInt32) -> String {
        switch mode & 0o170000 {
        case 0o100000: "file"
        case 0o040000: "directory"
        case 0o120000: "symlink"
        case 0o010000: "fifo"
        case 0o140000: "socket"
        case 0o020000: "character"
        case 0o060000: "block"
        default: "unknown"
        }
    }
}
