import Glibc
import HSMCore
import HSMSystem
import TestSupport
import Testing

@testable import HSMStore

/// Content that is compared with the digest that the remote gives for it.
@Suite struct DigestTests {
    private static let size = 10 * StoreFixture.granule - 100

    private static func digest(_ algorithm: RemoteDigest.Algorithm = .sha256, of bytes: [UInt8]) throws -> RemoteDigest
    {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        let file = try fixture.lower("x", O_RDWR | O_CREAT)
        try file.put(bytes, at: 0)
        return try ContentDigest.of(size: bytes.count, algorithm, file.read(into:at:))
    }

    private static func right() throws -> RemoteDigest { try digest(of: Pattern.bytes(0..<size)) }
    private static func wrong() throws -> RemoteDigest {
        try #require(RemoteDigest(.sha256, [UInt8](repeating: 7, count: 32)))
    }

    @Test("Digests are those of the standards")
    func vectors() throws {
        for (algorithm, text) in [
            (RemoteDigest.Algorithm.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (.md5, "900150983cd24fb0d6963f7d28e17f72"), (.crc32c, "364b3fb7"), (.crc32, "352441c2"),
            (.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"), (.crc64nvme, "05e5cabb3fc1faeb"),
        ] {
            #expect(try Self.digest(algorithm, of: Array("abc".utf8)).description == "\(algorithm):\(text)")
            #expect(
                try RemoteDigest(algorithm, hexadecimal: text.utf8) == Self.digest(algorithm, of: Array("abc".utf8)))
        }
        let long = (0..<3 << 20).map { UInt8(truncatingIfNeeded: $0 * 31) }
        #expect(try Self.digest(of: long) != Self.digest(of: Array(long.dropLast())))
        for text in ["", "ab", String(repeating: "g", count: 64), String(repeating: "a", count: 63)] {
            #expect(RemoteDigest(.sha256, hexadecimal: text.utf8) == nil)
        }
    }

    @Test("A record keeps the digest, and one of an unknown algorithm is not believed")
    func record() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        for algorithm in RemoteDigest.Algorithm.allCases {
            let digest = try Self.digest(algorithm, of: [1])
            try fixture.stub("f\(algorithm)", size: 5, digest: digest)
            #expect(try fixture.record("f\(algorithm)").object.digest == digest)
        }
        try fixture.stub("none", size: 5)
        #expect(try fixture.record("none").object.digest == nil)
        var bytes = try fixture.record("fcrc32c").object.storedBytes
        #expect(RemoteObject(stored: bytes, size: 5) != nil)
        bytes[0] = 99
        #expect(RemoteObject(stored: bytes, size: 5) == nil)
        var old = try fixture.record("fcrc32c").encodedAsFormat1()
        old[old.count - 5] = 99
        for index in 8..<12 { old[index] = 0 }
        withUnsafeBytes(of: CRC32C.of(old).littleEndian) { old.replaceSubrange(8..<12, with: $0) }
        #expect(throws: RecordError("the record has an unknown digest")) { try RecordValue(old) }
    }

    @Test("Content of the right digest becomes dual", arguments: RemoteDigest.Algorithm.allCases)
    func right(algorithm: RemoteDigest.Algorithm) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: Self.digest(algorithm, of: Pattern.bytes(0..<Self.size)))
        let file = try fixture.use()
        try fixture.fill(granules: 0..<4, of: file)
        try file.stored.commit()
        #expect(!file.fill.isComplete)
        try fixture.fill(0..<Self.size, of: file)
        #expect(file.fill.isComplete)
        try file.stored.commit()
        #expect(try fixture.record().state == .dual && fixture.record().object.digest != nil)
    }

    @Test("Content of another digest is not complete, not believed after a restart, and fetched anew")
    func wrong() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: Self.wrong())
        do {
            let file = try fixture.use()
            try fixture.fill(granules: 0..<4, of: file)
            try file.stored.commit()
            let error = #expect(throws: FillError.self) { try fixture.fill(0..<Self.size, of: file) }
            #expect(error?.code == .io && error?.reason == .wrongContent)
            #expect(!file.fill.isComplete && file.fill.isRefused && !file.stored.hasPending)
            #expect(throws: Errno(rawValue: EIO)) { try file.stored.becomeDirty() }
            try file.stored.commit()
        }
        let record = try fixture.record()
        #expect(record.state == .offline && record.flags == .error && record.epoch == 2)
        #expect(record.lastError.contains("sha256:0707") && record.lastError.hasPrefix("EIO"))
        #expect(try !fixture.hasMap())
        try fixture.restart()
        try fixture.change { $0.object.digest = try? Self.right() }
        fixture.source.forgetReads()
        let file = try fixture.use()
        #expect(file.granules.isEmpty)
        try fixture.fill(0..<Self.size, of: file)
        try file.stored.commit()
        #expect(try fixture.record().state == .dual && fixture.record().flags.isEmpty)
        #expect(fixture.source.log.reads.reduce(0) { $0 + $1.count } == Self.size)
    }

    @Test("A commit that began before the content was found wrong records nothing of it")
    func wrongMeanwhile() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: Self.wrong())
        let file = try fixture.use()
        try fixture.fill(granules: 0..<4, of: file)
        let commit = file.stored.beginCommit()
        #expect(throws: FillError.self) { try fixture.fill(0..<Self.size, of: file) }
        try file.stored.end(commit, isSynced: false)
        #expect(try fixture.record().state == .offline && !fixture.hasMap())
    }

    @Test("Local changes are never dropped for a digest's sake")
    func dirty() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: Self.wrong())
        let file = try fixture.use()
        try fixture.fill(granules: 0..<4, of: file)
        try fixture.write(7, granules: 5..<6, to: file)
        try fixture.fill(0..<Self.size, of: file)
        #expect(file.fill.isComplete)
        try file.stored.commit()
        #expect(try fixture.record().state == .dual && fixture.record().flags == .dirty)
        #expect(try file.bytes(granules: 5..<6).allSatisfy { $0 == 7 })
    }

    @Test("What a crash left complete but unchecked is checked when it is read")
    func crash() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: Self.wrong())
        try fixture.change { $0.state = .partial }
        let map = try ResidencyMap.create(
            in: fixture.store.partial, name: FileHandle(of: fixture.lower()).name, epoch: 1, granules: 10,
            session: fixture.store.session)
        try map.update(0..<10) { page, granule in page.set(.filled, of: granule) }
        let file = try fixture.use()
        #expect(!file.fill.isComplete)
        #expect(throws: FillError.self) { try fixture.fill(granules: 9..<10, of: file) }
        #expect(try fixture.record().state == .offline)
    }

    private func useStrictly(_ fixture: StoreFixture) throws -> IncompleteFile {
        try #require(try fixture.store.use(fixture.lower(), engine: fixture.engine, isStrict: true))
    }

    /// Bytes of the lower file that are not zero.
    private func written(_ fixture: StoreFixture) throws -> Int {
        try fixture.lower().bytes(0..<Self.size).count { $0 != 0 }
    }

    @Test(
        "Strictly, nothing is there before all of it is right, nor in the lower file but what was filled otherwise before",
        arguments: [true, false], [0, 3])
    func strict(isRight: Bool, before: Int) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: isRight ? Self.right() : Self.wrong())
        if before > 0 {
            let file = try fixture.use()
            try fixture.fill(granules: 1..<1 + before, of: file)
            try file.stored.commit()
        }
        try fixture.restart()
        do {
            let file = try useStrictly(fixture)
            #expect(file.granules.isEmpty, "what was filled before was not checked")
            fixture.source.goDown(FillError(.io, .remoteChanged, "for the test"))
            #expect(throws: FillError.self) { try fixture.fill(granules: 0..<1, of: file) }
            // All but one granule.
            let bytes = Pattern.bytes(0..<Self.size - 1000)
            try bytes.withUnsafeBytes {
                let whole = UnsafeRawBufferPointer(rebasing: $0[..<(9 * StoreFixture.granule)])
                try file.stored.fill(0..<9, with: whole)
            }
            #expect(try written(fixture) == before * StoreFixture.granule)
            try file.stored.commit()
        }
        try fixture.restart()
        fixture.source.comeBack()
        let file = try useStrictly(fixture)
        if isRight {
            try fixture.fill(granules: 1..<2, of: file)
            #expect(file.fill.isComplete)
            #expect(try fixture.lower().bytes(0..<Self.size) == Pattern.bytes(0..<Self.size))
            try file.stored.commit()
            #expect(try fixture.record().state == .dual)
        } else {
            #expect(throws: FillError.self) { try fixture.fill(granules: 1..<2, of: file) }
            #expect(file.granules.isEmpty)
            #expect(try written(fixture) == before * StoreFixture.granule)
        }
    }

    @Test("What was checked and cannot be moved into the lower file is not there, and comes anew")
    func unmovable() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: Self.right())
        do {
            // A descriptor that cannot write.
            let file = try #require(
                try fixture.store.use(fixture.lower("file", O_RDONLY), engine: fixture.engine, isStrict: true))
            let error = #expect(throws: FillError.self) { try fixture.fill(granules: 1..<2, of: file) }
            #expect(error?.reason == .lowerFailed)
            #expect(file.granules.isEmpty)
        }
        try fixture.restart()
        let file = try useStrictly(fixture)
        try fixture.fill(granules: 1..<2, of: file)
        #expect(try fixture.lower().bytes(0..<Self.size) == Pattern.bytes(0..<Self.size))
    }

    @Test("Strictly, what has no digest is not shown, and local changes are, alone")
    func uncheckable() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        try fixture.fillBeforeRestart(granules: 0..<3)
        do {
            let file = try useStrictly(fixture)
            #expect(file.granules.isEmpty)
            let error = #expect(throws: FillError.self) { try fixture.fill(granules: 1..<2, of: file) }
            #expect(error?.reason == .uncheckable)
        }
        try fixture.restart()
        do { try fixture.write(7, granules: 5..<6, to: fixture.use()) }
        try fixture.restart()
        let file = try useStrictly(fixture)
        #expect(file.granules == [0, 1, 2, 5])
        #expect(throws: FillError.self) { try fixture.fill(granules: 8..<9, of: file) }
    }

    @Test("Verifying finds a complete file of another digest, and drops it unless its time tells that it was changed")
    func verify() throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size, digest: Self.right())
        do {
            let file = try fixture.use()
            try fixture.fill(0..<Self.size, of: file)
            try file.stored.commit()
        }
        try fixture.restart()
        func found(repairs: Bool = true) throws -> [Disagreement] {
            var found: [Disagreement] = []
            _ = try Verifier(fixture.store, repairs: repairs) { found.append($0) }.run()
            return found
        }
        #expect(try found().isEmpty)
        try fixture.lower().put([0], at: 5000)
        #expect(try found().map(\.outcome) == [.left])
        let time = timespec(tv_sec: StoreFixture.modified.seconds, tv_nsec: StoreFixture.modified.nanoseconds)
        try fixture.lower().setTimes(access: FileTime.omit, modification: time)
        #expect(try found(repairs: false).map(\.outcome) == [.found])
        #expect(try found().map(\.kind) == [.data])
        #expect(try found().isEmpty && fixture.use().granules.isEmpty)
    }

    @Test(
        "A new version takes the file's place as a whole, and a dirty or complete file is left",
        arguments: [100, 100_000, 0])
    func refetch(size: Int) throws {
        let fixture = try StoreFixture()
        defer { fixture.remove() }
        try fixture.stub(size: Self.size)
        try fixture.fillBeforeRestart(granules: 0..<3)
        try fixture.change { $0.flags.formUnion([.stale, .error, .pinned]) }
        let new = RemoteObject(key: RemoteKey(Array("file".utf8)), version: RemoteVersion([50]), size: size)
        let time = RemoteEntry.Time(seconds: 5, nanoseconds: 6)
        #expect(try fixture.store.refetch(fixture.lower(), new, modified: time))
        let record = try fixture.record()
        #expect(record.object == new && record.limit == size && record.modified == time && record.epoch == 2)
        #expect(record.state == .offline && record.flags == .pinned)
        let status = try fixture.lower().stat()
        #expect(status.st_size == size && status.st_mtim.tv_sec == 5 && status.st_blocks <= 8)
        #expect(try !fixture.hasMap() && fixture.use().granules.isEmpty)
        for flags in [Record.Flags.dirty, []] {
            try fixture.change {
                $0.flags = flags
                $0.state = flags.isEmpty ? .dual : .offline
            }
            let before = try fixture.record()
            #expect(try !fixture.store.refetch(fixture.lower(), new, modified: time))
            #expect(try fixture.record() == before)
        }
    }
}
