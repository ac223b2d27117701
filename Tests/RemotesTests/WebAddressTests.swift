import HSMCore
import HSMRemotes
import Testing

@Suite struct WebAddressTests {
    @Test(arguments: [
        ("http://Host.Example", "http://host.example/"), ("HTTPS://h:8443/a//./b", "https://h:8443/a/b/"),
        ("http://[::1]:80/x y/%e4", "http://[::1]:80/x%20y/%E4/"), ("http://h:/%7Ea/", "http://h/~a/"),
    ])
    func `equal places have equal URLs, which end with a slash`(_ argument: String, _ url: String) throws {
        let location = try RemoteLocation(argument)
        #expect(location.url == url)
        #expect(try RemoteLocation(url) == location)
        #expect(location.address.directory == nil)
    }

    @Test(arguments: [
        ("http://user:geheim@host/x", "netrc"), ("https://geheim@host", "netrc"), ("http://h/?a", "%3F"),
        ("http://h/#a", "%23"), ("http:///x", "no valid host name"), ("http://h:0/", "port"),
        ("http://h:99999/", "port"),
        ("http://h/%zz", "%25"), ("http://h/a%2Fb", "%2F"), ("http://h/%00", "%00"), ("http://h/a/../b", ".."),
        ("http://a b/", "host"),
    ])
    func `what cannot be a source is refused, without repeating a secret`(_ argument: String, _ reason: String) {
        let error = #expect(throws: LocationError.self) { _ = try RemoteLocation(argument) }
        #expect(error?.description.contains(reason) == true, "\(error?.description ?? "")")
        #expect(error?.description.contains("geheim") == false)
    }
}

@Suite struct PathEventsTests {
    private func events(_ paths: [String]) -> String {
        var (text, events) = ("", PathEvents())
        func note(_ event: RemoteEvent) {
            switch event {
            case .enter(let entry): text += "(" + String(decoding: entry.name, as: UTF8.self) + " "
            case .leave: text += ")"
            case .entry, .unreadable: break
            }
        }
        for path in paths {
            events.go(to: Array(path.utf8), note)
            text += path + " "
        }
        events.finish(note)
        return text
    }

    @Test func `directories are entered and left as the paths have them`() {
        #expect(events([]) == "")
        #expect(
            events(["a", "b/c", "b/d", "b/e/f/g", "b/h", "x/e/f/g"])
                == "a (b b/c b/d (e (f b/e/f/g ))b/h )(x (e (f x/e/f/g )))")
    }

    @Test func `a path that is another, or is below it, is found among those in between`() {
        var prefixes = PathPrefixes()
        let expected: [(String, Int?)] = [
            ("a", nil), ("a!", nil), ("a!/x", 2), ("a!!", nil), ("a/b", 1), ("a/b/c", 1), ("a0", nil), ("a0", 2),
            ("b/c", nil),
            ("b/c/d", 3), ("b/cd", nil), ("c", nil),
        ]
        for (path, length) in expected { #expect(prefixes.add(Array(path.utf8)) == length, "\(path)") }
    }
}
