import Glibc
import HSMCore
import HSMRemotes
import HSMSystem
import TestSupport
import Testing

@Suite struct DirectoryListingTests {
    func source(_ tree: TemporaryDirectory) throws -> DirectorySource {
        DirectorySource(path: Array(tree.path.utf8), location: "test")
    }

    @Test func `a listing holds every kind of entry, between the enter and the leave of its directory`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("mkdir -p a/b; echo hello > a/b/file; ln -s 'some where' link; mkfifo fifo; mknod null c 1 3")
        tree.shell("mknod disk b 7 300; python3 -c 'import socket; socket.socket(1).bind(\"socket\")'")
        let listing = try await Listing(source(tree))
        #expect(listing.paths == ["a", "a/b", "a/b/file", "link", "fifo", "null", "disk", "socket"])
        #expect(listing.top?.kind == .directory)
        #expect(listing["link"]?.kind == .symlink(target: Array("some where".utf8)))
        #expect(listing["fifo"]?.kind == .fifo)
        #expect(listing["socket"]?.kind == .socket)
        #expect(listing["null"]?.kind == .characterDevice(0x103))
        #expect(listing["disk"]?.kind == .blockDevice(0x10072c))
        #expect(listing.object("a/b/file")?.size == 6)
        #expect(listing.leaves == 3)
        #expect(listing.unreadable.isEmpty)
    }

    @Test func `metadata comes whole: mode, owner, times to the nanosecond, attributes and ACLs`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("echo x > f; chown 12:34 f; chmod 6751 f; setfattr -n user.colour -v blue f; setfacl -m u:99:r f")
        tree.shell("setfattr -n user.passhsm -v no f; setfattr -n trusted.other -v no f")
        tree.shell("touch -a -d '2001-02-03 04:05:06.123456789Z' f; touch -m -d '1969-12-31 23:59:58.000000007Z' f")
        let entry = try #require(try await Listing(source(tree))["f"])
        #expect(entry.metadata.permissions == 0o6751)
        #expect(entry.metadata.owner == 12)
        #expect(entry.metadata.group == 34)
        #expect(entry.metadata.accessTime == .init(seconds: 981_173_106, nanoseconds: 123_456_789))
        #expect(entry.metadata.modificationTime == .init(seconds: -2, nanoseconds: 7))
        let names = entry.metadata.attributes.map { String(decoding: $0.name, as: UTF8.self) }
        #expect(Set(names) == ["user.colour", "system.posix_acl_access"])
        #expect(entry.metadata.attributes.contains { $0.value == Array("blue".utf8) })
        guard case .file(let object) = entry.kind else { return #expect(Bool(false)) }
        #expect(object.size == 2 && object.version.bytes.count == 17)
    }

    @Test func `names of one file share an identity, and a file with one name has none`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("mkdir d; echo x > one; ln one d/two; echo y > single; ln -s x sym; ln sym sym2")
        let listing = try await Listing(source(tree))
        #expect(listing["one"]?.linkIdentity != nil)
        #expect(listing["one"]?.linkIdentity == listing["d/two"]?.linkIdentity)
        #expect(listing["single"]?.linkIdentity == nil)
        #expect(listing["sym"]?.linkIdentity == listing["sym2"]?.linkIdentity)
        #expect(listing["d"]?.linkIdentity == nil)
    }

    @Test func `names are bytes, up to 255 of them`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell(#"touch "$(printf 'bad\377\001name\nline')" "$(printf '%0255d' 0)""#)
        let listing = try await Listing(source(tree))
        #expect(listing.entries.keys.contains(Array("bad".utf8) + [0xff, 1] + Array("name\nline".utf8)))
        #expect(listing.entries.keys.contains([UInt8](repeating: 0x30, count: 255)))
        #expect(listing.entries.count == 2)
    }

    @Test func `only the top directory's own data is left out`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("mkdir -p .passhsm/tmp sub/.passhsm; touch sub/.passhsm/f")
        #expect(try await Listing(source(tree)).paths == ["sub", "sub/.passhsm", "sub/.passhsm/f"])
    }

    @Test func `a directory of more names than a buffer holds is listed whole, with its directories in between`()
        async throws
    {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("seq -f 'file-with-quite-a-long-name-%g' 6000 | xargs touch; seq 300 | xargs mkdir")
        tree.shell("for i in $(seq 300); do : > $i/inside; done")
        let listing = try await Listing(source(tree))
        #expect(listing.entries.count == 6600)
    }

    @Test func `a tree thousands of levels deep is listed with few descriptors, and read to its end`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        let component = [UInt8](repeating: 0x64, count: 40)
        let inodes = try tree.makeDeep(3000, component: component, file: [0x66], content: [1, 2, 3])
        // Names beside the deep directory, so that closed directories have something left to be read.
        tree.shell("for i in $(seq 2000); do : > $i; done")
        let open = HighestCount(of: inodes)
        let source = try source(tree)
        try await source.list { event in if case .enter = event { open.look() } }
        #expect(open.highest > 0 && open.highest < 300)
        let listing = try await Listing(source)
        #expect(listing.deepest == 3001)
        #expect(listing.entries.count == 3001 + 2000)
        #expect(listing.leaves == 3001)
        let key = Array([[UInt8]](repeating: component, count: 3000).joined(separator: [0x2f])) + [0x2f, 0x66]
        guard case .file(let object) = listing.entries[key]?.kind else { return #expect(Bool(false)) }
        var content: [UInt8] = []
        try await source.read(object, range: 0..<3) { bytes throws(FillError) in content += bytes }
        #expect(content == [1, 2, 3])
    }

    @Test func `a closed directory is read on where it was left`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        // Each of 300 levels has more names than one buffer, so that levels beyond the limit are read on after a seek.
        var directory = ""
        for level in 0..<300 {
            directory += "d/"
            if level < 20 {
                tree.shell("mkdir -p \(directory) && cd \(directory) && seq -f '%0120g' 900 | xargs touch")
            }
        }
        tree.shell("mkdir -p \(directory)")
        let listing = try await Listing(source(tree))
        #expect(listing.entries.count == 300 + 20 * 900)
    }

    @Test func `an unreadable directory is reported, and the walk goes on`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("mkdir a b; touch a/x b/y; chmod 0 a; chmod 755 .")
        let source = try source(tree)
        let listing = try await withoutPrivilege { try await Listing(source) }
        #expect(listing.paths == ["b", "b/y"])
        #expect(listing.unreadable.map(\.0.description) == ["a"])
    }

    @Test func `listing leaves access times alone`() async throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("mkdir d; echo x > d/f; touch -a -d 2001-01-01 d/f d")
        let source = try source(tree)
        let listing = try await Listing(source)
        let object = try #require(listing.object("d/f"))
        try await source.read(object, range: 0..<2) { _ in }
        tree.shell("test $(stat -c %X d) = $(date -d 2001-01-01 +%s) && test $(stat -c %X d/f) = $(stat -c %X d)")
    }
}

/// The most descriptors that were open at once.
final class HighestCount {
    private let inodes: Set<UInt64>
    private(set) var highest = 0
    private var looks = 0

    init(of inodes: Set<UInt64>) { self.inodes = inodes }

    /// Counts at every 20th call: it looks at each descriptor that the process may have.
    func look() {
        looks += 1
        guard looks % 20 == 0 else { return }
        var count = 0
        for number in DirectoryReader.texts(in: "/proc/self/fd").compactMap({ Int32($0) }) {
            var status = stat()
            if fstat(number, &status) == 0, inodes.contains(UInt64(status.st_ino)) { count += 1 }
        }
        highest = max(highest, count)
    }
}
