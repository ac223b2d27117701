import HSMCore
import HSMSystem

/// The content of an attribute, before the file's object is looked up. FORMAT.md has the formats.
struct RecordValue: Sendable {
    /// The file that the record was written for.
    enum Owner: Sendable, Equatable {
        /// Format 1.
        case handle(FileHandle)
        /// Format 2: ``FileHandle/identityHash``.
        case hash(UInt64)

        func isOf(_ handle: FileHandle) -> Bool {
            switch self {
            case .handle(let own): own == handle
            case .hash(let hash): hash == handle.identityHash
            }
        }
    }

    /// Where the remote object's key, version and digest are.
    enum ObjectLocation: Sendable, Equatable {
        case inline(RemoteObject)
        case table(ObjectReference)
        /// Format 1: the key is in `keys/`, and the rest is here.
        case keyFile(RemoteObject)
    }

    var state: Record.State
    var flags: Record.Flags
    var epoch: UInt64
    var size: Int
    var limit: Int
    var granuleSize: Int
    var modified: RemoteEntry.Time
    var stamp = ChangeStamp()
    var contentChecksum: UInt32?
    var lastError: String
    var owner: Owner
    var objectLocation: ObjectLocation

    /// - Throws: `RecordError` for anything except a whole record of a known version with the right checksum.
    init(_ bytes: [UInt8]) throws(RecordError) {
        if bytes.starts(with: RecordFormat2.start) {
            try self.init(format2: bytes)
        } else {
            try self.init(format1: bytes)
        }
    }
}

/// The format that records are written in.
enum RecordFormat2 {
    static let start: [UInt8] = [UInt8(ascii: "P"), 2]
    static let checksumOffset = 2
    /// Granules have at least 512 bytes.
    static let smallestShift = 9
    /// A larger object is kept in the table. So a usual record has at most 64 bytes, for which an inode of 256 bytes
    /// has room on ext4.
    static let maxInlineObject = 16

    /// Tells which fields are present.
    struct Fields: OptionSet {
        let rawValue: UInt8

        static let limit = Fields(rawValue: 1)
        static let changed = Fields(rawValue: 2)
        static let contentChecksum = Fields(rawValue: 4)
        static let lastError = Fields(rawValue: 8)
        /// The object is in the table, and not here.
        static let reference = Fields(rawValue: 16)
        static let written = Fields(rawValue: 32)
        static let all = Fields(rawValue: 63)
    }
}

extension FileHandle {
    /// FNV-1a of the type (one byte, as in ``name``) and the handle. It tells whether a record was copied from another
    /// file. It differs in kind from the record's checksum, so that neither can make up for an error of the other.
    var identityHash: UInt64 {
        ([UInt8(truncatingIfNeeded: type)] + bytes).reduce(0xcbf2_9ce4_8422_2325) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
    }
}

extension ByteWriter {
    fileprivate mutating func put(_ time: RemoteEntry.Time) {
        putVariable(signed: Int64(time.seconds))
        putVariable(UInt64(max(0, time.nanoseconds)))
    }
}

extension ByteReader {
    fileprivate mutating func takeTime() -> RemoteEntry.Time? {
        guard let seconds = takeVariableSigned(), let nanoseconds = takeVariable(), nanoseconds < 1_000_000_000 else {
            return nil
        }
        return RemoteEntry.Time(seconds: Int(seconds), nanoseconds: Int(nanoseconds))
    }
}

extension Record {
    /// The object is small enough to be kept in the record.
    var keepsObject: Bool { object.storedBytes.count <= RecordFormat2.maxInlineObject }

    /// Encodes the attribute's value in format 2.
    ///
    /// - Parameter reference: the object's place in the table; nil: the object is in the value itself, however long it
    ///   is.
    func encoded(_ reference: ObjectReference?) -> [UInt8] {
        var fields: RecordFormat2.Fields = []
        if limit != object.size { fields.insert(.limit) }
        if changed != nil { fields.insert(.changed) }
        if written != nil { fields.insert(.written) }
        if contentChecksum != nil { fields.insert(.contentChecksum) }
        if !lastError.isEmpty { fields.insert(.lastError) }
        if reference != nil { fields.insert(.reference) }
        var writer = ByteWriter()
        writer.put(RecordFormat2.start)
        writer.put(UInt32(0))
        writer.put(identity.identityHash)
        let shift = UInt8(granuleSize.trailingZeroBitCount - RecordFormat2.smallestShift)
        writer.put(state.rawValue | shift << 3)
        writer.put(fields.rawValue)
        writer.putVariable(UInt64(flags.rawValue))
        writer.putVariable(epoch)
        writer.putVariable(UInt64(object.size))
        if fields.contains(.limit) { writer.putVariable(UInt64(limit)) }
        writer.put(modified)
        if let changed { writer.put(changed) }
        if let written { writer.put(written) }
        if let contentChecksum { writer.put(contentChecksum) }
        if fields.contains(.lastError) {
            writer.put(UInt8(lastError.utf8.count))
            writer.put(Array(lastError.utf8))
        }
        if let reference {
            writer.putVariable(UInt64(reference.table))
            writer.putVariable(reference.offset)
            writer.put(reference.checksum)
        } else {
            writer.put(object.storedBytes)
        }
        writer.replace(at: RecordFormat2.checksumOffset, with: CRC32C.of(writer.bytes))
        return writer.bytes
    }
}

extension RecordValue {
    fileprivate init(format2 bytes: [UInt8]) throws(RecordError) {
        var reader = ByteReader(bytes.dropFirst(RecordFormat2.checksumOffset))
        guard let checksum = reader.take(UInt32.self) else { throw RecordError("the record is cut off") }
        var unsigned = bytes
        unsigned.replaceSubrange(RecordFormat2.checksumOffset..<RecordFormat2.checksumOffset + 4, with: [0, 0, 0, 0])
        guard checksum == CRC32C.of(unsigned) else { throw RecordError("the record's checksum is wrong") }
        guard let owner = reader.take(UInt64.self), let first = reader.take(UInt8.self),
            let state = Record.State(rawValue: first & 7),
            let fields = reader.take(UInt8.self).map(RecordFormat2.Fields.init(rawValue:)),
            fields.isSubset(of: .all),
            let flags = reader.takeVariable().flatMap({ UInt16(exactly: $0) }), let epoch = reader.takeVariable(),
            let size = reader.takeVariable().flatMap({ Int(exactly: $0) })
        else { throw RecordError("the record has impossible fields") }
        self.owner = .hash(owner)
        self.state = state
        self.flags = Record.Flags(rawValue: flags)
        self.epoch = epoch
        self.size = size
        granuleSize = 1 << (Int(first >> 3) + RecordFormat2.smallestShift)
        limit = size
        if fields.contains(.limit) {
            guard let limit = reader.takeVariable(), limit < UInt64(size) else {
                throw RecordError("the record has an impossible limit")
            }
            self.limit = Int(limit)
        }
        guard let modified = reader.takeTime(),
            let changed = fields.contains(.changed) ? reader.takeTime().map(Optional.some) : .some(nil),
            let written = fields.contains(.written) ? reader.takeTime().map(Optional.some) : .some(nil),
            let content = fields.contains(.contentChecksum)
                ? reader.take(UInt32.self).map(Optional.some) : .some(nil),
            let error = fields.contains(.lastError) ? reader.takeCounted() : .some([])
        else { throw RecordError("the record is cut off") }
        self.modified = modified
        stamp = ChangeStamp(changed: changed, written: written)
        contentChecksum = content
        lastError = String(decoding: error, as: UTF8.self)
        if fields.contains(.reference) {
            guard let table = reader.takeVariable().flatMap({ UInt32(exactly: $0) }),
                let offset = reader.takeVariable(), let check = reader.take(UInt32.self), reader.isAtEnd
            else { throw RecordError("the record's reference is malformed") }
            objectLocation = .table(ObjectReference(table: table, offset: offset, checksum: check))
        } else {
            guard let object = RemoteObject(stored: Array(reader.takeRest()), size: size) else {
                throw RecordError("the record's object is malformed")
            }
            objectLocation = .inline(object)
        }
    }
}
