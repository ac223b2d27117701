import Glibc
import HSMCore
import HSMSystem

/// The checks of one file.
extension Verifier {
    private static let isDirty = "the file has local changes, and is left as it is"

    func check(_ file: VerifiedFile) throws(Errno) {
        let handle = try FileHandle(of: file.place).name
        let record: Record?
        do throws(RecordError) { record = try store.record(of: file.place) } catch {
            // Only its map and key still tell of it.
            maps.remove(handle)
            keys.remove(handle)
            return found(Disagreement(path: file.path, kind: .record, cause: error.cause, outcome: .left))
        }
        guard let record, record.state != .local else {
            // As a local file, it would show zeros where nothing was filled.
            if maps.remove(handle) != nil {
                let cause =
                    "the record is gone, though there is a residency map: the file shows zeros where it was not filled"
                found(Disagreement(path: file.path, kind: .record, cause: cause, outcome: .left))
            }
            return
        }
        counts.files += 1
        // A key that its file no longer needs is no fault: the next opening for use removes it, when that is safe.
        keys.remove(handle)
        if record.state == .partial { maps.remove(handle) }
        let isDirty = record.flags.contains(.dirty)
        if !isDirty && file.status.st_size != record.object.size {
            let cause = "has \(file.status.st_size) bytes instead of \(record.object.size)"
            found(.size, of: file, nil, cause, keep: record.isComplete ? changeBehind(file, record) : nil) {
                () throws(Errno) in try takeOffline(file, record)
            }
        } else if record.state == .partial {
            try checkPartial(file, record)
        } else if record.isComplete, !isDirty {
            try checkComplete(file, record)
        }
    }

    /// The reason to leave a complete clean file as it is: its modification time tells that it was changed in the lower
    /// directory itself, without a dirty mark. Nil for other files.
    func changeBehind(_ file: VerifiedFile, _ record: Record) -> String? {
        let time = RemoteEntry.Time(
            seconds: file.status.st_mtim.tv_sec, nanoseconds: file.status.st_mtim.tv_nsec)
        if time == record.modified { return nil }
        return "it may have been changed behind the mount's back, and is left as it is"
    }

    // MARK: Partial files

    private func checkPartial(_ file: VerifiedFile, _ record: Record) throws(Errno) {
        let keep = record.flags.contains(.dirty) ? Self.isDirty : nil
        func mapFound(_ range: Range<Int>?, _ cause: String) {
            found(.map, of: file, range, cause, keep: keep) { () throws(Errno) in try takeOffline(file, record) }
        }
        let residencyMap: ResidencyMap
        do throws(RecordError) {
            residencyMap = try ResidencyMap.open(
                in: store.partial, name: record.identity.name, epoch: record.epoch, granules: record.layout.count)
        } catch {
            return mapFound(nil, error.cause)
        }
        var record = record
        // A kill may have come between a truncation and its record.
        if keep != nil { record.limit = min(record.limit, file.status.st_size) }
        let layout = record.layout
        var isMapGood = true
        var wrong = GranuleSet()
        let lower = try file.place.reopen(O_RDONLY)
        let pages = try residencyMap.forEachPage { first, page throws(Errno) in
            let granules = first..<max(first, min(first + ResidencyMap.granulesPerPage, layout.count))
            guard let page else {
                isMapGood = false
                let range = granules.isEmpty ? nil : layout.bytes(of: granules)
                return mapFound(range, "a page of the residency map is damaged")
            }
            for granule in granules where page.presence(of: granule) == .filled {
                let range = layout.bytes(of: granule..<granule + 1)
                // A truncation cut this granule: the checksum is of all its former bytes.
                if range.upperBound == record.limit && record.limit < record.object.size { continue }
                if try checksum(of: range, in: lower) != page.checksum(of: granule) {
                    wrong.insert(granule..<granule + 1)
                }
            }
        }
        if pages.missing > 0 {
            isMapGood = false
            mapFound(nil, "\(pages.missing) written pages of the residency map are zeros")
        }
        // The whole file was dropped already.
        if !isMapGood && repairs && keep == nil { return }
        for run in wrong.runs() {
            found(.data, of: file, layout.bytes(of: run), "the bytes are not those that were filled", keep: keep) {
                () throws(Errno) in
                try residencyMap.update(run) { page, granule in page.set(.absent, of: granule) }
                try residencyMap.sync()
            }
        }
    }

    /// CRC32C of these bytes; nil when they cannot be read, or are not all there.
    private func checksum(of range: Range<Int>, in lower: Descriptor) throws(Errno) -> UInt32? {
        var result: UInt32 = 0
        var buffer = [UInt8](repeating: 0, count: min(range.count, 1 << 20))
        var offset = range.lowerBound
        while offset < range.upperBound {
            let size = min(buffer.count, range.upperBound - offset)
            let count = buffer.withUnsafeMutableBytes { bytes -> Int? in
                let part = UnsafeMutableRawBufferPointer(rebasing: bytes[..<size])
                guard let count = try? lower.read(into: part, at: offset) else { return nil }
                result = CRC32C.of(UnsafeRawBufferPointer(rebasing: part[..<count]), continuing: result)
                return count
            }
            guard count == size else { return nil }
            read(size)
            offset += size
        }
        return result
    }

    // MARK: Repair

    /// Makes a clean file one of which nothing is present.
    func takeOffline(_ file: VerifiedFile, _ record: Record) throws(Errno) {
        let lower = try file.place.reopen(O_RDWR)
        var record = record
        record.forgetContent()
        try store.write(record, to: lower)
        // The record comes before the first byte goes: a file that is offline shows no zeros.
        try lower.fsync()
        store.forgetResidency(of: record.identity)
        if file.status.st_size != record.object.size { try lower.truncate(to: record.object.size) }
        // This only saves space: a failure does no harm.
        try? lower.freeContent(size: record.object.size)
        try lower.setModified(record.modified)
        try lower.fsync()
    }
}
