import CFuse
import CLinux
import Glibc
import HSMCore
import HSMStore
import HSMSystem

/// FALLOCATE.
extension FileSystem {
    func fallocate(_ reply: consuming Reply, _ number: UInt64, mode: Int32, offset: Int, length: Int) {
        do throws(Errno) {
            let handle = try openFiles.find(number)
            let lower = try lower(handle)
            guard let file = handle.inode.content else {
                try OrdinaryUser.write { () throws(Errno) in
                    _ = try check { passhsm_fallocate(lower.raw, mode, offset, length) }
                }
                return reply.done()
            }
            noteChange(handle.inode)
            if mode & (PASSHSM_FALLOC_PUNCH_HOLE | PASSHSM_FALLOC_ZERO_RANGE) != 0 {
                let rest = Range(at: offset, count: length)
                return clear(PendingReply(reply), Clearing(file: file, lower: lower, mode: mode, rest: rest))
            }
            // Only space: the content, and what of it is missing, stays. The kernel passes on no other modes.
            try file.stored.becomeDirty()
            try OrdinaryUser.write { () throws(Errno) in
                _ = try check { passhsm_fallocate(lower.raw, mode, offset, length) }
            }
            file.stored.touch()
            reply.done()
        } catch { reply.error(error) }
    }

    /// Making zeros of a part of a file that is not complete.
    private struct Clearing: Sendable {
        let file: IncompleteFile
        let lower: Descriptor
        let mode: Int32
        /// What is left to do.
        var rest: Range<Int>

        /// Granules that are cleared at once: what a step writes to the residency map takes no time that is felt.
        private static let step = 1 << 14

        /// What comes first of the rest; beyond the limit there is nothing to be noted, however much it is.
        var first: Range<Int> {
            let layout = file.fill.layout
            let size = layout.granuleSize * Self.step
            let end = (rest.lowerBound / size * size).adding(saturating: size)
            return rest.lowerBound..<(end < layout.limit ? min(end, rest.upperBound) : rest.upperBound)
        }
    }

    /// Takes the next step, and is called again for the one after it: a file may have 2^47 granules, and its user may give up
    /// meanwhile. What was done until then stays done, as it does on a disk.
    private func clear(_ reply: PendingReply, _ clearing: Clearing) {
        let (range, mode) = (clearing.first, clearing.mode)
        let operation: Operation = { lower throws(Errno) in
            try OrdinaryUser.write { () throws(Errno) in
                _ = try check { passhsm_fallocate(lower.raw, mode, range.lowerBound, range.count) }
            }
            return range.count
        }
        change(range, of: clearing.file, through: clearing.lower, reply, operation) { [self] reply, result in
            if case .failure(let error) = result { return reply.error(error) }
            var clearing = clearing
            clearing.rest = range.upperBound..<clearing.rest.upperBound
            if clearing.rest.isEmpty { return reply.done() }
            if reply.isInterrupted && PendingSignals.end(reply.caller.pid) { return reply.error(EINTR) }
            let (reply, next) = (PendingReply(reply), clearing)
            // On a stack of its own.
            pool.run { [self] in clear(reply, next) }
        }
    }
}
