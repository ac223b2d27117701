import Glibc
import HSMCore
import HSMSystem

/// Checks the content of complete files that are recorded as clean: against the records, and against the remote.
extension Verifier {
    /// Attempts to get a file that the remote fails to give.
    private static let maxAttempts = 3
    /// After so many files in a row that the remote failed to give, it is not asked any more.
    private static let maxFailures = 8

    func checkComplete(_ file: VerifiedFile, _ record: Record) throws(Errno) {
        let isKnown = record.contentChecksum != nil || record.object.digest != nil
        guard isKnown || remote != nil else {
            if record.object.size > 0 { counts.unchecked += 1 }
            return
        }
        let lower = try file.place.reopen(O_RDONLY)
        var checksum: UInt32?
        if isKnown {
            let content = content(of: lower, record.object)
            if let digest = record.object.digest, content?.digest != digest {
                return wrong(file, record, nil, "the content does not have the digest \(digest)")
            }
            if let expected = record.contentChecksum, content?.checksum != expected {
                return wrong(
                    file, record, nil, "the content is not what came from the remote: its checksum is another one")
            }
            if record.object.digest != nil { checksum = content?.checksum }
        }
        if let remote { checksum = compare(file, record, lower, with: remote) ?? checksum }
        // With a checksum, the next comparison is cheaper.
        guard repairs, record.contentChecksum == nil, let checksum else { return }
        var record = record
        record.contentChecksum = checksum
        try store.write(record, to: file.place)
    }

    private func wrong(_ file: VerifiedFile, _ record: Record, _ range: Range<Int>?, _ cause: String) {
        var keep = changeBehind(file, record)
        if !record.flags.isDisjoint(with: [.stale, .lost]) {
            keep = keep ?? "the remote does not have it any more, and it is left as it is"
        }
        found(.data, of: file, range, cause, keep: keep) { () throws(Errno) in try takeOffline(file, record) }
    }

    /// The content's checksum and digest. Nil when the content cannot be read: then it differs from the recorded
    /// content.
    private func content(
        of lower: Descriptor, _ object: RemoteObject
    ) -> (checksum: UInt32, digest: RemoteDigest?)? {
        var checksum: UInt32 = 0
        func next(_ buffer: UnsafeMutableRawBufferPointer, _ offset: Int) throws(Errno) -> Int {
            let count = try lower.read(into: buffer, at: offset)
            checksum = CRC32C.of(UnsafeRawBufferPointer(rebasing: buffer[..<count]), continuing: checksum)
            read(count)
            return count
        }
        do throws(Errno) {
            if let digest = object.digest {
                let found = try ContentDigest.of(size: object.size, digest.algorithm, next)
                return (checksum, found)
            }
            try ContentDigest.read(object.size, next) { _ in }
            return (checksum, nil)
        } catch { return nil }
    }

    // MARK: The remote

    /// Compares the file byte for byte with the remote's object.
    ///
    /// - Returns: the content's checksum when both are equal.
    private func compare(
        _ file: VerifiedFile, _ record: Record, _ lower: Descriptor, with remote: any RemoteStore
    ) -> UInt32? {
        let object = record.object
        let outcome = pool.wait { [firstPause] () async -> ContentComparison.Outcome in
            var outcome = ContentComparison.Outcome.failed("")
            for attempt in 0..<Self.maxAttempts {
                var comparison = ContentComparison(lower)
                outcome = await comparison.run(object, remote)
                guard case .failed = outcome, attempt + 1 < Self.maxAttempts else { break }
                try? await Task.sleep(for: firstPause * (1 << (2 * attempt)))
            }
            return outcome
        }
        if case .failed(let cause) = outcome {
            var text = "cannot be compared with the remote: \(cause)"
            failures += 1
            if failures >= Self.maxFailures {
                self.remote = nil
                text += "; it is not asked any more"
            }
            found(Disagreement(path: file.path, kind: .unreadable, cause: text, outcome: .left))
            return nil
        }
        failures = 0
        read(object.size)
        switch outcome {
        case .same(let checksum): return checksum
        case .differs(let range): wrong(file, record, range, "the bytes are not those that the remote has")
        case .other: counts.changed += 1
        case .failed: break
        }
        return nil
    }
}
