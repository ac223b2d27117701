import Glibc
import HSMCore
import HSMRemotes
import HSMSystem
import TestSupport
import Testing

@Suite struct DirectoryVersionTests {
    private func failure(
        _ source: any RemoteStore, _ object: RemoteObject, _ range: Range<Int>? = nil, _ between: () -> Void = {}
    ) async -> (count: Int, error: FillError?) {
        var count = 0
        do throws(FillError) {
            try await source.read(object, range: range ?? 0..<object.size) { bytes throws(FillError) in
                if count == 0 { between() }
                count += bytes.count
            }
        } catch { return (count, error) }
        return (count, nil)
    }

    private static let rewrites = [
        "yes b | head -c 3145728 | dd of=f conv=notrunc status=none; touch -r kept f",
        "yes b | head -c 3145728 > g; touch -r kept g; mv g f",
        "printf bbbb | dd of=f bs=1 seek=3000000 conv=notrunc status=none; touch -r kept f",
    ]

    @Test(arguments: rewrites)
    func `a file that was rewritten, with size and modification time kept, has another version`(
        rewrite: String
    ) async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("yes a | head -c 3145728 > f; touch -d 2001-01-01 f; cp -p f kept")
        let source = DirectorySource(path: Array(tree.path.utf8), location: "test")
        let object = try #require(try await Listing(source).object("f"))
        #expect(await failure(source, object).error == nil)
        let half = await failure(source, object) { tree.shell(rewrite) }
        #expect(half.error?.reason == .remoteChanged && half.count == 1 << 20)
        #expect(await failure(source, object).error?.reason == .remoteChanged)
        #expect(await failure(source, object, 0..<0).error?.reason == .remoteChanged)
        tree.shell("test $(stat -c %s-%Y f) = $(stat -c %s-%Y kept)")
        let now = try await source.current(object.key).object
        #expect(!source.agrees(object, with: now, isMoved: false) && source.agrees(object, with: now, isMoved: true))
    }

    /// As versions were recorded before there were change times in them.
    @Test(arguments: ["2001-01-01 00:00:00.5", "1960-01-01 00:00:00.25", "@0", "@-1"])
    func `a version that an older import recorded holds by size and modification time`(time: String) async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("echo content > f; touch -d '\(time)' f")
        let source = DirectorySource(path: Array(tree.path.utf8), location: "test")
        var object = try await source.current(RemoteKey(Array("f".utf8))).object
        #expect(object.version.bytes.count <= 20)
        let new = object
        let status = try Descriptor.open("\(tree.path)/f", O_RDONLY).stat()
        let digits = String(status.st_mtim.tv_nsec)
        let fraction = String(repeating: "0", count: 9 - digits.count) + digits
        object.version = RemoteVersion(Array("\(status.st_mtim.tv_sec).\(fraction)-8".utf8))
        #expect(await failure(source, object).error == nil)
        #expect(source.agrees(object, with: new, isMoved: false))
        tree.shell("touch f")
        #expect(await failure(source, object).error?.reason == .remoteChanged)
    }

    @Test func `where inode numbers and change times say nothing, size and modification time are the version`()
        async throws
    {
        let tree = try TemporaryDirectory()
        defer {
            system("umount -l \(tree.path)/top 2>/dev/null")
            tree.remove()
        }
        tree.shell("mkdir low up work top; echo content > low/f; touch -d 2001-01-01 low/f")
        tree.shell("mount -t overlay none -o lowerdir=low,upperdir=up,workdir=work top")
        let source = DirectorySource(path: Array("\(tree.path)/top".utf8), location: "test")
        let object = try #require(try await Listing(source).object("f"))
        let exact = try #require(
            try await Listing(DirectorySource(path: Array("\(tree.path)/low".utf8), location: "test")).object("f"))
        #expect(exact.version != object.version && source.agrees(exact, with: object, isMoved: false))
        // Copied up: another inode, with a change time of its own.
        tree.shell("chmod 600 top/f")
        #expect(await failure(source, object).error == nil)
        tree.shell("touch top/f")
        #expect(await failure(source, object).error?.reason == .remoteChanged)
    }
}
