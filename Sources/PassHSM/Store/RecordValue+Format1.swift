import HSMCore
import HSMSystem

/// Format 1 of records: it is read, and never written.
extension RecordValue {
    private static let checksumOffset = 8
    private static let keyIsElsewhere: UInt16 = 0xffff

    init(format1 bytes: [UInt8]) throws(RecordError) {
        var reader = ByteReader(bytes)
        guard reader.take(4).map(Array.init) == Array("PHSM".utf8), let version = reader.take(UInt16.self) else {
            throw RecordError("the record is not one of PassHSM's, or of a later version")
        }
        guard version == 1 else { throw RecordError("the record has the unknown version \(version)") }
        guard bytes.count >= Self.checksumOffset + 4 else { throw RecordError("the record is cut off") }
        var unsigned = bytes
        for index in Self.checksumOffset..<Self.checksumOffset + 4 { unsigned[index] = 0 }
        guard let _ = reader.take(UInt16.self), reader.take(UInt32.self) == CRC32C.of(unsigned) else {
            throw RecordError("the record's checksum is wrong")
        }
        guard let state = reader.take(UInt8.self).flatMap(Record.State.init(rawValue:)),
            let shift = reader.take(UInt8.self), (9...40).contains(shift), let flags = reader.take(UInt16.self),
            let epoch = reader.take(UInt64.self), let size = reader.take(Int64.self), size >= 0,
            let limit = reader.take(Int64.self), (0...size).contains(limit), let seconds = reader.take(Int64.self),
            let nanoseconds = reader.take(UInt32.self), nanoseconds < 1_000_000_000, let type = reader.take(Int32.self),
            let identity = reader.takeCounted().flatMap({ FileHandle(type: type, bytes: $0) }),
            let versionBytes = reader.takeCounted(), let error = reader.takeCounted(),
            let keyCount = reader.take(UInt16.self)
        else { throw RecordError("the record is cut off") }
        let isElsewhere = keyCount == Self.keyIsElsewhere
        guard let key = reader.take(isElsewhere ? 0 : Int(keyCount)) else {
            throw RecordError("the record is cut off")
        }
        var digest: RemoteDigest?
        if let number = reader.take(UInt8.self) {
            guard let algorithm = RemoteDigest.Algorithm(rawValue: number), let bytes = reader.take(algorithm.count)
            else { throw RecordError("the record has an unknown digest") }
            digest = RemoteDigest(algorithm, bytes)
        }
        self.state = state
        self.flags = Record.Flags(rawValue: flags)
        self.epoch = epoch
        self.size = Int(size)
        self.limit = Int(limit)
        granuleSize = 1 << Int(shift)
        modified = RemoteEntry.Time(seconds: Int(seconds), nanoseconds: Int(nanoseconds))
        lastError = String(decoding: error, as: UTF8.self)
        owner = .handle(identity)
        let object = RemoteObject(
            key: RemoteKey(Array(key)), version: RemoteVersion(Array(versionBytes)), size: Int(size), digest: digest)
        objectLocation = isElsewhere ? .keyFile(object) : .inline(object)
    }
}
