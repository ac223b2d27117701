import Foundation

/// What the bytes of a file may be after a crash: what was synced, and what was written and not synced.
final class Ledger {
    private struct Write {
        let offset: Int
        let bytes: [UInt8]
    }

    let name: String
    /// What must be there, but for writes that may have come to the disk or not.
    private(set) var expected: [UInt8]
    private var pending: [Write] = []
    /// Those that failed, which may have been done in part.
    private var doubtful: [Write] = []

    init(_ name: String, _ content: [UInt8]) { (self.name, expected) = (name, content) }

    var size: Int { expected.count }

    /// A write is about to be tried.
    func attempt(_ bytes: [UInt8], at offset: Int) { doubtful.append(Write(offset: offset, bytes: bytes)) }

    /// The last attempt was answered: it is there unless the power fails.
    func succeeded() { if let write = doubtful.popLast() { pending.append(write) } }

    /// What was answered is durable; or only the process was killed, and the page cache has it.
    func synced() {
        for write in pending {
            expected.replaceSubrange(write.offset..<write.offset + write.bytes.count, with: write.bytes)
        }
        pending = []
    }

    /// The first offset at which `content` is nothing that it may be; nil when it is right.
    func fault(in content: [UInt8]) -> Int? {
        if content == expected { return nil }
        guard content.count == expected.count else { return min(content.count, expected.count) }
        return content.indices.first { index in
            content[index] != expected[index]
                && !(pending + doubtful).contains { write in
                    (write.offset..<write.offset + write.bytes.count).contains(index)
                        && write.bytes[index - write.offset] == content[index]
                }
        }
    }

    /// After a crash: what is there counts from now on.
    func settle(_ content: [UInt8]) {
        expected = content
        pending = []
        doubtful = []
    }
}
