import CLinux
import Glibc
import HSMCore
import HSMFuseDoor
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
            // The request changes only space: the content stays, and so do its absent parts. The kernel passes on no
            // other modes.
            try file.stored.becomeDirty()
            try OrdinaryUser.write { () throws(Errno) in
                _ = try check { passhsm_fallocate(lower.raw, mode, offset, length) }
            }
            file.stored.touch()
            reply.done()
        } catch { reply.error(error) }
    }

    /// Makes zeros of a part of a file that is not complete.
    private struct Clearing: Sendable {
        let file: IncompleteFile
        let lower: Descriptor
        let mode: Int32
        /// The range that is left to clear.
        var rest: Range<Int>

        /// How many granules one step clears. A step writes so little to the residency map that no user notices the
        /// time.
        private static let step = 1 << 14

        /// The range of the next step. Beyond the limit the residency map records nothing, so one step takes all of
        /// that, however much it is.
        var first: Range<Int> {
            let layout = file.fill.layout
            let size = layout.granuleSize * Self.step
            let end = (rest.lowerBound / size * size).adding(saturating: size)
            return rest.lowerBound..<(end < layout.limit ? min(end, rest.upperBound) : rest.upperBound)
        }
    }

    /// Takes the next step, and is called again for the one after it: a file may have 2^47 granules, and its user may
    /// give up meanwhile. The finished steps stay done, as they do on a disk.
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
            let pending = PendingReply(reply)
            if pending.isInterrupted, PendingSignals.end(pending.caller?.thread ?? 0) {
                pending.take()?.error(EINTR)
                return
            }
            let next = clearing
            // The next step gets a stack of its own.
            pool.run { [self] in clear(pending, next) }
        }
    }
}
