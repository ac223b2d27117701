import Glibc
import HSMCore
import HSMSystem

/// The decision about one file.
extension Adopter {
    /// Adopts a file with local changes, which exist nowhere else.
    func adoptDirty(_ file: AdoptedFile, _ record: Record, _ owner: RecordValue.Owner) throws(Errno) -> Outcome {
        if record.isComplete {
            try store.write(record, to: file.place)
            return .dirty
        }
        guard record.state == .partial else {
            return .left("it has local changes, and its record says that it is empty")
        }
        let lower = try file.place.reopen(O_RDWR)
        // After a power cut, the copy must not have less than its map says.
        try lower.fsync()
        do throws(RecordError) {
            _ = try maps.takeOver(record, from: owner, file.status.st_size, lower)
        } catch {
            return .left("it has local changes, which only its residency map can tell: \(error.cause)")
        }
        try store.write(record, to: lower)
        try lower.fsync()
        return .dirty
    }

    func adoptClean(_ file: AdoptedFile, _ record: Record, _ owner: RecordValue.Owner) throws(Errno) -> Outcome {
        switch record.state {
        case .dual: return try adoptComplete(file, record)
        case .partial where file.status.st_size == record.object.size:
            let lower = try file.place.reopen(O_RDWR)
            // Without a map, or with a damaged one, everything is fetched again.
            guard let present = try? maps.takeOver(record, from: owner, file.status.st_size, lower), present > 0 else {
                return try goOffline(file, record)
            }
            try store.write(record, to: lower)
            try lower.setModified(record.modified)
            return .partial
        default: return try goOffline(file, record)
        }
    }

    private func adoptComplete(_ file: AdoptedFile, _ record: Record) throws(Errno) -> Outcome {
        let hasSize = file.status.st_size == record.object.size
        let hasTime = record.isModificationTime(file.status.st_mtim)
        let proof = try hasSize ? proof(of: file, record) : .none
        if hasSize && (proof == .right || (proof == .none && hasTime && isWhole(file))) {
            try store.write(record, to: file.place)
            if !hasTime { try file.place.reopen(O_RDWR).setModified(record.modified) }
            return .complete
        }
        if !record.flags.isDisjoint(with: [.lost, .stale]) {
            return .left("its content is not the recorded one, and the remote no longer has the recorded version")
        }
        if record.wasChangedUnseen(file.status) && !refetchesChanged {
            return .left("its size or time is not the recorded one: it was changed, or not copied whole")
        }
        return try goOffline(file, record)
    }

    private enum Proof { case right, wrong, none }

    /// Compares the content with the digest, or else with the checksum.
    private func proof(of file: AdoptedFile, _ record: Record) throws(Errno) -> Proof {
        if record.object.size == 0 { return .right }
        let lower = try file.place.reopen(O_RDONLY)
        if let digest = record.object.digest {
            let found = try? ContentDigest.of(size: record.object.size, digest.algorithm) {
                buffer, offset throws(Errno) in try lower.read(into: buffer, at: offset)
            }
            return found == digest ? .right : .wrong
        }
        guard let checksum = record.contentChecksum else { return .none }
        return lower.checksum(of: 0..<record.object.size) == checksum ? .right : .wrong
    }

    /// Whether the file has no holes: nothing could tell whether holes are the content's own. A copying program sets
    /// the time last.
    private func isWhole(_ file: AdoptedFile) -> Bool {
        guard let lower = try? file.place.reopen(O_RDONLY), let end = try? lower.seekHole(from: 0) else { return false }
        return end == file.status.st_size
    }

    /// Makes the file one of which nothing is present, and frees its blocks.
    private func goOffline(_ file: AdoptedFile, _ record: Record) throws(Errno) -> Outcome {
        let isOffline = ![.dual, .partial].contains(record.state)
        var record = record
        record.forgetContent()
        let hasSize = file.status.st_size == record.object.size
        let hadContent = try file.status.st_size > 0 ? file.place.reopen(O_RDONLY).seekData(from: 0) != nil : false
        if hasSize && !hadContent {
            try store.write(record, to: file.place)
            if !record.isModificationTime(file.status.st_mtim) {
                try file.place.reopen(O_RDWR).setModified(record.modified)
            }
            return .offline(hadContent: false)
        }
        let lower = try file.place.reopen(O_RDWR)
        try store.write(record, to: lower)
        // The record comes before the first byte goes: a file that is offline shows no zeros.
        try lower.fsync()
        try lower.truncate(to: record.object.size)
        // This only saves space: a failure does no harm.
        try? lower.freeContent(size: record.object.size)
        try lower.setModified(record.modified)
        // A stub that was copied as zeros has no content to lose.
        return .offline(hadContent: hadContent && !isOffline)
    }
}

extension Descriptor {
    /// CRC32C of these bytes; nil when they cannot be read, or are not all there.
    func checksum(of range: Range<Int>) -> UInt32? {
        var result: UInt32 = 0
        var count = 0
        do throws(Errno) {
            try ContentDigest.read(range.count) { buffer, offset throws(Errno) in
                try read(into: buffer, at: range.lowerBound + offset)
            } _: { bytes in
                result = CRC32C.of(bytes, continuing: result)
                count += bytes.count
            }
        } catch { return nil }
        return count == range.count ? result : nil
    }
}
