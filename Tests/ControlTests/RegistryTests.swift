import Glibc
import HSMControl
import HSMSystem
import Testing

@Suite struct RegistryTests {
    @Test func aDaemonIsFoundByMountpointAndByLower() throws {
        let registry = try TemporaryRegistry()
        let info = DaemonInfo.own("/mnt/a", lower: "/data/a")
        let registration = try registry.directory.register(info)
        #expect(try registry.directory.daemon(forMountpoint: BytePath("/mnt//a/.")) == info)
        #expect(try registry.directory.daemon(forMountpoint: BytePath("/mnt/a/x")) == nil)
        #expect(try registry.directory.daemon(forLower: BytePath("/data/a")) == info)
        registration.remove()
        #expect(try registry.directory.daemon(forMountpoint: BytePath("/mnt/a")) == nil)
        #expect(registry.directory.all() == [])
    }

    @Test func theInnermostMountContainsAPath() throws {
        let registry = try TemporaryRegistry()
        let outer = DaemonInfo.own("/mnt/a")
        // Two daemons need two living processes: this one, and init.
        let start = try #require(ProcessHandle.startTime(of: 1))
        let inner = DaemonInfo(
            pid: 1, startTime: start, mountpoint: BytePath("/mnt/a/b/c"), lower: BytePath("/in"), frontEnd: .fuse)
        try registry.write(inner)
        let registration = try registry.directory.register(outer)
        defer { registration.remove() }
        #expect(try registry.directory.daemon(containing: BytePath("/mnt/a/b/c/d"))?.pid == 1)
        #expect(try registry.directory.daemon(containing: BytePath("/mnt/a/b/cd"))?.pid == outer.pid)
        #expect(try registry.directory.daemon(containing: BytePath("/mnt/a/b/c/../x"))?.pid == outer.pid)
        #expect(try registry.directory.daemon(containing: BytePath("/mnt/ab")) == nil)
    }

    @Test func whatEndedDaemonsLeftIsRemovedWhenOneStarts() throws {
        let registry = try TemporaryRegistry()
        let gone = try DaemonInfo.gone("/mnt/gone")
        try registry.write(gone)
        var reused = DaemonInfo.own("/mnt/reused")
        reused.pid = 1
        try registry.write(reused)
        // Its info cannot be read, but its process lives: it may be starting.
        var starting = DaemonInfo.own("/mnt/starting")
        starting.pid = getppid()
        try registry.write(starting, content: Array("{".utf8))
        #expect(try registry.directory.daemon(forMountpoint: BytePath("/mnt/gone")) == nil)
        #expect(try registry.directory.daemon(forMountpoint: BytePath("/mnt/reused")) == nil)

        let registration = try registry.directory.register(.own("/mnt/new"))
        #expect(registry.directory.all().map(\.mountpoint) == [BytePath("/mnt/new")])
        #expect(
            DirectoryReader.texts(in: registry.path.description).sorted() == ["\(getpid())", "\(getppid())"].sorted())
        registration.remove()
    }

    @Test func aFolderThatOthersCanEnterIsRefused() throws {
        let registry = try TemporaryRegistry()
        chmod(registry.path.description, 0o755)
        #expect(throws: ControlError.self) { _ = try registry.directory.register(.own("/mnt/a")) }
        #expect(registry.directory.all() == [])
    }

    @Test(
        "A place that another user has taken is passed over, and neither believed nor in the way",
        arguments: ["mkdir -m 700 place; chown 65534 place", "mkdir -m 755 place", "ln -s / place", "touch place"])
    func takenPlaces(taking: String) throws {
        let folder = try TemporaryRegistry()
        let place = folder.path.appending("place")
        system("cd \(folder.path) && { \(taking); }; mkdir -m 700 own.theirs; chown 65534 own.theirs")
        func registry() -> RuntimeDirectory {
            RuntimeDirectory([BytePath("/nonexistent/passhsm"), place], shared: (folder.path, "own."))
        }
        let info = DaemonInfo.own("/mnt/a")
        let registration = try registry().register(info)
        // Another process looks.
        #expect(registry().all() == [info])
        #expect(try registry().daemon(forMountpoint: BytePath("/mnt/a")) == info)
        let server = try ControlServer(
            registration, handlers: .example())
        #expect(try ControlClient(info, in: registry()).request(.status).status != nil)
        server.stop()
        #expect(registry().all() == [])
        // The folder is used again, and a place that is free later comes first.
        try registry().register(info).remove()
        #expect(DirectoryReader.texts(in: folder.path.description).filter { $0.hasPrefix("own.") }.count == 2)
        system("rm -rf \(place)")
        let later = try registry().register(info)
        #expect(DirectoryReader.texts(in: place.description) == ["\(getpid())"])
        later.remove()
    }

    @Test func anyBytesAreKeptInTheRegistry() throws {
        let registry = try TemporaryRegistry()
        let path = BytePath([0x2F, 0x6D, 0xFF, 0xFE, 0x0A, 0x22, 0xC3])
        let info = DaemonInfo(mountpoint: path, lower: BytePath("/l"), frontEnd: .fuse)
        let registration = try registry.directory.register(info)
        defer { registration.remove() }
        #expect(try registry.directory.daemon(forMountpoint: path)?.mountpoint == path)
    }
}

@Suite struct PathResolverTests {
    private let links: [String: String] = [
        "/link": "/mnt", "/rel/up": "../mnt/./a", "/loop": "/loop", "/mnt/a/inner": "/elsewhere",
    ]

    private func resolve(_ path: String, from: String = "/") throws(Errno) -> BytePath {
        let links = links
        let resolver = PathResolver(untouchable: [BytePath("/mnt/a")]) { path in
            links[path.description].map { BytePath($0) }
        }
        return try resolver.resolve(BytePath(path), from: BytePath(from))
    }

    @Test(arguments: [
        ("/link/a", "/mnt/a"), ("/rel/up", "/mnt/a"), ("/rel/up/inner/x", "/mnt/a/inner/x"), ("/", "/"),
        ("//x/./y/..", "/x"), ("/..", "/"), ("/mnt/a/..", "/mnt"), ("/link/../z", "/z"),
    ])
    func symlinksAreFollowedUpToTheMount(path: String, expected: String) throws {
        #expect(try resolve(path) == BytePath(expected))
    }

    @Test func aRelativePathStartsInTheDirectory() throws {
        #expect(try resolve("../b", from: "/link/c") == BytePath("/mnt/b"))
        #expect(try resolve(".", from: "/mnt/a/d") == BytePath("/mnt/a/d"))
    }

    @Test func aLoopOfSymlinksIsAnError() {
        #expect(throws: Errno(rawValue: ELOOP)) { try resolve("/loop/x") }
    }

    @Test func aMountIsNeverTouched() throws {
        let resolver = PathResolver(untouchable: [BytePath("/mnt/a")]) { path in
            if BytePath("/mnt/a").contains(path) { Issue.record("touched \(path)") }
            return nil
        }
        _ = try resolver.resolve(BytePath("/mnt/a/b/../c"), from: BytePath("/"))
    }
}
