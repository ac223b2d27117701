import HSMRemotes
import HSMSystem
import TestSupport
import Testing

@Suite struct RemoteLocationTests {
    @Test(arguments: [
        ("/data", "file:///data"), ("/", "file:///"), ("//data/./x/", "file:///data/x"), ("/a b%", "file:///a%20b%25"),
        ("file:///data/x", "file:///data/x"), ("FILE://localhost/data", "file:///data"),
        ("file:///a%20b%ff%00".replacing("%00", with: ""), "file:///a%20b%FF"), ("/ä", "file:///%C3%A4"),
        ("/x:y", "file:///x%3Ay"), ("/a?b#c", "file:///a%3Fb%23c"), ("/odd/http://x", "file:///odd/http%3A/x"),
    ])
    func `a path and a URL name the same place`(_ argument: String, _ url: String) throws {
        let location = try RemoteLocation(argument)
        #expect(location.url == url)
        #expect(try RemoteLocation(location.url) == location)
    }

    @Test func `every byte survives the way through the URL`() throws {
        let bytes = (1...255).filter { $0 != 0x2f }.map { UInt8($0) }
        let text = bytes.map { "%" + ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        let location = try RemoteLocation("file:///" + text)
        #expect(location.address.directory?.bytes == [0x2f] + bytes)
        #expect(try RemoteLocation(location.url).address.directory?.bytes == [0x2f] + bytes)
    }

    @Test func `a path that is not text is a place like others`() throws {
        let location = try RemoteLocation(BytePath([0x2f, 0xff, 0x61]))
        #expect(location.address.directory?.bytes == [0x2f, 0xff, 0x61])
        #expect(location.url == "file:///%FFa")
    }

    @Test func `a relative path begins at the current directory`() throws {
        let location = try RemoteLocation("some/where")
        #expect(location.address.directory?.bytes.first == 0x2f)
        #expect(location.address.directory?.bytes.ends(with: "/some/where") == true)
    }

    @Test(arguments: [
        ("ftp://host/x", "ftp:// is not supported"), ("s3://b", "bucket's name"), ("", "is empty"),
        ("file://host/x", "without a host"), ("file://", "absolute path"), ("file:///a%", "%25"),
        ("file:///a%zz", "%zz"),
        ("file:///a%00", "%00"), ("file:///a%+1", "%+1"), ("file:///a?b", "%3F"),
    ])
    func `what cannot be a source is refused with the reason`(_ argument: String, _ reason: String) {
        let error = #expect(throws: LocationError.self) { _ = try RemoteLocation(argument) }
        #expect(error?.description.contains(reason) == true, "\(error?.description ?? "")")
    }

    @Test func `an option that only other kinds have is refused, with what it is for`() throws {
        var directory = try RemoteLocation("/data")
        let option = #expect(throws: LocationError.self) { try directory.set([("region", "eu")]) }
        #expect(option?.description == "--endpoint, --region, --profile and --style are for s3:// sources")
        var access = RemoteAccess()
        access.manifest = BytePath("/list")
        for location in [directory, try RemoteLocation("s3://data")] {
            let manifest = #expect(throws: LocationError.self) { _ = try location.open(access) }
            #expect(manifest?.description == "--manifest is for http:// and https:// sources")
        }
    }

    @Test func `a missing source and one that is no directory are told apart`() throws {
        let tree = try TemporaryDirectory()
        defer { tree.remove() }
        tree.shell("touch file; mkdir dir")
        let missing = #expect(throws: LocationError.self) {
            _ = try RemoteLocation(tree.path + "/none").open()
        }
        #expect(missing?.description == "the source \(tree.path)/none does not exist")
        let file = #expect(throws: LocationError.self) { _ = try RemoteLocation(tree.path + "/file").open() }
        #expect(file?.description == "the source \(tree.path)/file is not a directory")
        #expect(try RemoteLocation(tree.path + "/dir").open().location == "file://\(tree.path)/dir")
    }
}

extension [UInt8] {
    fileprivate func ends(with text: String) -> Bool { suffix(text.utf8.count).elementsEqual(text.utf8) }
}
