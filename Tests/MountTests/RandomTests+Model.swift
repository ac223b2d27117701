import Glibc

extension MountTests.RandomOperations {
    /// What one file may be: each version of the remote's that it may hold, with the local changes on top.
    final class Model {
        struct Candidate {
            /// The remote's version; 0 when nothing of any is left.
            var version: Int
            var bytes: [UInt8]
        }

        let name: String
        private(set) var candidates: [Candidate] = []
        /// Versions that it may go over to when it is opened and nobody has it open.
        private var later: [Candidate] = []
        private(set) var isDirty = false
        /// Somebody opened it for writing: after a crash it is called dirty.
        var mayBeDirty = false
        /// What the remote had last.
        private var remote = Candidate(version: 0, bytes: [])
        var isGone = false
        /// What was done to it last, for the message of a failure.
        private(set) var history: [String] = []

        init(_ name: String) { self.name = name }

        func note(_ what: String) {
            history.append(what)
            if history.count > 40 { history.removeFirst() }
        }

        /// Some of its content cannot be had from the remote any more.
        var mayFail: Bool { candidates.contains { $0.version != 0 && ($0.version != remote.version || isGone) } }
        var size: Int { candidates.map(\.bytes.count).max() ?? 0 }
        var only: [UInt8]? { candidates.count == 1 ? candidates[0].bytes : nil }

        // MARK: The remote

        func remoteChanged(to bytes: [UInt8], version: Int) {
            (remote, isGone) = (Candidate(version: version, bytes: bytes), false)
            if !isDirty { later.append(remote) }
        }

        /// It was imported, for the first time or after it was removed.
        func imported() {
            (candidates, later, isDirty, mayBeDirty) = ([remote], [], false, false)
        }

        /// It was imported again, or opened while nobody had it open and the mount takes new versions.
        func mayRefetch() {
            guard !isDirty else { return }
            candidates += later.filter { new in !candidates.contains { $0.version == new.version } }
        }

        // MARK: Observations

        /// Whether the file may have `bytes` at `offset`, and be as long as that tells; what it cannot be is given up.
        func matches(_ bytes: [UInt8], at offset: Int, asked: Int) -> Bool {
            narrow { candidate in
                let expected = max(0, min(asked, candidate.bytes.count - offset))
                guard bytes.count == expected else { return false }
                if expected == 0 { return true }
                return candidate.bytes.withUnsafeBytes { all in
                    bytes.withUnsafeBytes { found in
                        guard let start = all.baseAddress, let found = found.baseAddress else { return false }
                        return memcmp(start + offset, found, expected) == 0
                    }
                }
            }
        }

        func matches(size: Int) -> Bool { narrow { $0.bytes.count == size } }

        private func narrow(_ isPossible: (Candidate) -> Bool) -> Bool {
            let left = candidates.filter(isPossible)
            guard !left.isEmpty else { return false }
            candidates = left
            let oldest = left.map(\.version).min() ?? 0
            later.removeAll { $0.version <= oldest }
            return true
        }

        // MARK: Changes

        func write(_ bytes: some Collection<UInt8>, at offset: Int?) {
            change { content in
                let start = offset ?? content.count
                let end = start + bytes.count
                if content.count < end { content += [UInt8](repeating: 0, count: end - content.count) }
                content.replaceSubrange(start..<end, with: bytes)
            }
        }

        /// Zeros, as far as the file goes.
        func punch(_ range: Range<Int>) {
            change { content in
                let range = range.clamped(to: 0..<content.count)
                content.replaceSubrange(range, with: repeatElement(0, count: range.count))
            }
        }

        func truncate(_ size: Int) {
            change { content in
                if size < content.count { content.removeLast(content.count - size) }
                content += [UInt8](repeating: 0, count: size - content.count)
            }
            if size == 0 { candidates = [Candidate(version: 0, bytes: [])] }
        }

        private func change(_ body: (inout [UInt8]) -> Void) {
            for index in candidates.indices { body(&candidates[index].bytes) }
            (isDirty, later) = (true, [])
        }
    }
}
