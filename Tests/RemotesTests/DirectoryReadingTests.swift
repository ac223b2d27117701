import Glibc
import HSMCore
import HSMRemotes
import HSMSystem
import TestSupport
import Testing

@Suite struct DirectoryReadingTests {
    func source(_ tree: TemporaryDirectory) throws -> DirectorySource {
        DirectorySource(path: Array(tree.path.utf8), location: "test")
    }

    func read(_ source: any RemoteStore, _ object: RemoteObject, _ range: Range<Int>) async throws -> [UInt8] {
        var content: [UInt8] = []
        try await source.read(object, range: range) { bytes throws(FillError) in content += bytes }
        return content
    }

    func failure(_ source: any RemoteStore, _ object: RemoteObject, _ range: Range<Int>) async -> FillError? {
        do {
            _ = try await read(source, object, range)
            return nil
        } catch { return error as? FillError }
    }

    @Test func `any range is read as it is`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("head -c 3000000 /dev/urandom > f; chmod 644 f")
        let source = try source(tree)
        let object = try #require(try await Listing(source).object("f"))
        let all = try await read(source, object, 0..<3_000_000)
        #expect(all.count == 3_000_000)
        let file = try Descriptor.open("\(tree.path)/f", O_RDONLY)
        var expected = [UInt8](repeating: 0, count: 3_000_000)
        _ = try expected.withUnsafeMutableBytes { try file.read(into: $0, at: 0) }
        // Not inside the expectation, which would print megabytes; so below.
        let isSame = all == expected
        #expect(isSame)
        #expect(try await read(source, object, 1_048_570..<1_048_600) == Array(expected[1_048_570..<1_048_600]))
        #expect(try await read(source, object, 5..<5).isEmpty)
    }

    @Test func `another version is refused: content, size, time, kind`() async throws {
        for change in [
            "echo other > f", "echo more >> f", "touch f", "rm f; mkdir f", "rm f; ln -s g f", "rm f; mkfifo f",
        ] {
            let tree = try TemporaryDirectory()
            defer { tree.remove() }
            tree.shell("echo first > f; echo first > g; touch -d 2001-01-01 f g")
            let source = try source(tree)
            let object = try #require(try await Listing(source).object("f"))
            tree.shell(change)
            #expect(await failure(source, object, 0..<6)?.reason == .remoteChanged, "\(change)")
        }
    }

    @Test func `a change between two pieces ends the read, and nothing of the new version is delivered`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("yes old | head -c 4194304 > f; touch -d 2001-01-01 f")
        let source = try source(tree)
        let object = try #require(try await Listing(source).object("f"))
        var content: [UInt8] = []
        var error: FillError?
        do {
            try await source.read(object, range: 0..<4_194_304) { bytes throws(FillError) in
                if content.isEmpty { tree.shell("yes new | head -c 4194304 > f") }
                content += bytes
            }
        } catch let caught { error = caught }
        #expect(error?.reason == .remoteChanged)
        #expect(content.count == 1 << 20)
        let hasNew = content.contains(UInt8(ascii: "n"))
        #expect(!hasNew)
    }

    @Test func `a range beyond the end is a change, a missing file is gone`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("mkdir d; echo first > d/f")
        let source = try source(tree)
        let object = try #require(try await Listing(source).object("d/f"))
        #expect(await failure(source, object, 0..<7)?.reason == .remoteChanged)
        tree.shell("rm d/f")
        #expect(await failure(source, object, 0..<6)?.reason == .remoteGone)
        tree.shell("rmdir d; touch d")
        #expect(await failure(source, object, 0..<6)?.reason == .remoteGone)
    }

    @Test func `no symlink leads out, and no key does`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("mkdir -p top/d out; echo secret > out/f; cp -p out/f top/d/f")
        let source = DirectorySource(path: Array("\(tree.path)/top".utf8), location: "test")
        let object = try #require(try await Listing(source).object("d/f"))
        tree.shell("rm -r top/d; ln -s ../out top/d")
        #expect(await failure(source, object, 0..<7)?.reason == .remoteGone)
        for key in ["../out/f", "", "/etc/passwd", "d//f", "./x", "x/.."] {
            var other = object
            other.key = RemoteKey(Array(key.utf8))
            #expect(await failure(source, other, 0..<7)?.reason == .remoteFailed, "\(key)")
        }
    }

    @Test func `a cancelled task reads no further`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("head -c 4194304 /dev/zero > f")
        let source = try source(tree)
        let object = try #require(try await Listing(source).object("f"))
        let task = Task { () -> (Int, FillError?) in
            var count = 0
            do throws(FillError) {
                try await source.read(object, range: 0..<4_194_304) { bytes throws(FillError) in
                    count += bytes.count
                    withUnsafeCurrentTask { $0?.cancel() }
                }
                return (count, nil)
            } catch { return (count, error) }
        }
        let (count, error) = await task.value
        #expect(count == 1 << 20)
        #expect(error?.code == .interrupted)
        #expect(error?.reason == .cancelled)
    }

    @Test func `what deliver throws ends the read`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("echo x > f")
        let source = try source(tree)
        let object = try #require(try await Listing(source).object("f"))
        let full = FillError(.noSpace, .lowerFailed, "full")
        await #expect(throws: full) {
            try await source.read(object, range: 0..<2) { _ throws(FillError) in throw full }
        }
    }

    @Test func `a file that may not be read is a failure of the remote, without permission`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("echo x > f; chmod 755 .")
        let source = try source(tree)
        let object = try #require(try await Listing(source).object("f"))
        tree.shell("chmod 0 f")
        let error = await withoutPrivilege { await failure(source, object, 0..<2) }
        #expect(error?.reason == .remoteFailed)
        #expect(error?.code == .permission)
        #expect(error?.cause.contains("opening f") == true)
    }
}
