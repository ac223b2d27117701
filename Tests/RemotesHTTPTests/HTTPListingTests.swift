import FaultServers
import HSMCore
import HSMRemotes
import Synchronization
import Testing

@Suite struct HTTPListingTests {
    /// Answers for paths; everything else is 404.
    static func serve(_ pages: [String: FaultServer.Reply]) -> @Sendable (FaultServer.Request) -> FaultServer.Reply {
        { request in
            guard var reply = pages[request.target] else { return FaultServer.Reply(status: 404) }
            if request.method == "HEAD" { reply.headers["Content-Length"] = "\(reply.body.count)" }
            return reply
        }
    }

    static func page(_ html: String) -> FaultServer.Reply {
        FaultServer.Reply(headers: ["Content-Type": "text/html"], body: Array(html.utf8))
    }

    static func file(_ content: String, tag: String = "\"t\"") -> FaultServer.Reply {
        FaultServer.Reply(
            headers: ["ETag": tag, "Last-Modified": HTTPDate.text(Sample.modified)], body: Array(content.utf8))
    }

    /// `enter a`, `file a/b 3`, `leave`, `unreadable c` and so on.
    static func events(_ source: HTTPSource) async throws -> [String] {
        var (events, path): ([String], [String]) = ([], [])
        try await source.list { event in
            switch event {
            case .enter(let entry):
                path.append(String(decoding: entry.name, as: UTF8.self))
                events.append("enter " + path.dropFirst().joined(separator: "/"))
            case .entry(let entry):
                guard case .file(let object) = entry.kind else { return }
                events.append("file \(object.key) \(object.size)")
            case .leave:
                path.removeLast()
                events.append("leave")
            case .unreadable(let key, _): events.append("unreadable \(key)")
            }
        }
        return events
    }

    static let nginx = """
        <html><head><title>Index of /t/</title></head><body><h1>Index of /t/</h1><hr><pre><a href="../">../</a>
        <a href="d/">d/</a>             24-Nov-2026 00:16      -
        <a href="a%20%3Cb%3E%26%3F%23%25">a &lt;b&gt;&amp;?#%</a>   24-Nov-2026 00:16      2
        </pre><hr></body></html>
        """
    static let apache = """
        <!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN"><html><head><title>Index of /t</title></head><body>
        <table><tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
        <tr><td><a href="/">Parent Directory</a></td></tr><tr><td><a href="d/">d/</a></td><td>2026-11-24 00:16</td></tr>
        <tr><td><a href="a%20%3cb%3e&amp;%3f%23%25">a &lt;b&gt;</a></td><td align="right">2.0</td></tr></table></body></html>
        """
    static let python = """
        <!DOCTYPE HTML><html lang="en"><head><meta charset="utf-8"><title>Directory listing for /t/</title></head>
        <body><ul><li><a href='./d/'>d/</a></li><li><A class=x HREF=a%20%3Cb%3E%26%3F%23%25>a</A></li>
        <li><a href="/t/d/">again</a></li><a href="https://example.org/t/x">away</a><a href="mailto:x">me</a></ul></body>
        """
    static let caddy = """
        <!DOCTYPE html><html><head><title>t</title><meta charset="utf-8"></head><body><h1><a href="../">/</a><a href="">t</a>/
        </h1><div class="listing"><table><th><a href="?sort=namedirfirst&order=desc"
        <a href="?sort=name&order=asc">Name</a></th><tr><td><a href="..">
        <span class="goup">Go up</span></a></td></tr><tr class="file"><td><a href="./d/"><span class="name">d/</span></a></td>
        <td data-order="-1">&mdash;</td></tr><tr><td><a href="./a%20%3Cb%3E%26%3F%23%25">a</a></td></tr></table></div>
        Served with <a rel="noopener noreferrer" href="https://caddyserver.com">Caddy</a></body></html>
        """
    static let rclone = """
        <!DOCTYPE html><html><head><title>/t</title><meta charset="utf-8"></head><body><h1><a href="../">/</a><a href="">t</a>/
        <a class="zip-root" href="?download=zip">x</a></h1><div class="listing"><table><tr class="file"><td>
        <span class="name"><a href="d/">d/</a></span><a class="zip" href="d/?download=zip" title="Download folder as .zip">
        </a></td></tr><tr><td><span class="name"><a href="./a%20%3Cb%3E%26%3F%23%25">a</a></span></td></tr></table></div>
        """
    static let json = #"[{"name":"d","type":"directory","mtime":"x"},{"name":"a <b>&?#%","type":"file","size":2}]"#

    @Test(arguments: ["nginx", "apache", "python", "caddy", "rclone", "json"])
    func `index pages are followed, and each file is asked for its version`(kind: String) async throws {
        let html = [
            "nginx": Self.nginx, "apache": Self.apache, "python": Self.python, "caddy": Self.caddy,
            "rclone": Self.rclone,
        ][kind]
        let top = FaultServer.Reply(
            headers: ["Content-Type": html == nil ? "application/json" : "text/html"],
            body: Array((html ?? Self.json).utf8))
        let pages = [
            "/t/": top, "/t/d/": Self.page("<title>Index of</title><a href=f>f</a><a href=e/>e</a>"),
            "/t/d/e/": Self.page("<title>Index of /t/d/e</title>"), "/t/d/f": Self.file("abc"),
            "/t/a%20%3Cb%3E%26%3F%23%25": Self.file("ab"),
        ]
        try await withServer(Self.serve(pages)) { server in
            let events = try await Self.events(source(server.url + "t"))
            #expect(
                events == [
                    "enter ", "enter d", "file d/f 3", "enter d/e", "leave", "leave", "file a <b>&?#% 2", "leave",
                ])
        }
    }

    @Test func `names that look like places elsewhere, and titles that are decoded too often`() async throws {
        let listing = { (title: String, links: String) in
            Self.page("<title>\(title)</title><p class='listing'>\(links)")
        }
        let pages = [
            "/": listing("/", "<a href=./http:x>x</a><a href=ftp:y>y</a><a href=z:z>z</a><a href=./c%2520d/>c</a>"),
            "/c%2520d/": listing("c d", "<a href=f>f</a>"), "/http%3Ax": Self.file("1"), "/z%3Az": Self.file("22"),
            "/c%2520d/f": Self.file("333"),
        ]
        try await withServer(Self.serve(pages)) { server in
            let events = try await Self.events(source(server.url))
            #expect(
                events == ["enter ", "file http:x 1", "file z:z 2", "enter c%20d", "file c%20d/f 3", "leave", "leave"])
        }
    }

    @Test func `what cannot be listed is reported, and the rest comes`() async throws {
        let pages = [
            "/": Self.page(
                "<title>Index of /</title><a href=gone>x</a><a href=site/>x</a><a href=shop/>x</a><a href=same>x</a>"
                    + "<a href=ok>x</a>"),
            "/site/": Self.page("<title>site</title><a href=trap>x</a>"),
            "/shop/": Self.page("<title>Our shop</title><div class=\"listing\"><a href=trap>x</a></div>"),
            "/same": FaultServer.Reply(body: [1, 2]), "/ok": Self.file("abc"),
        ]
        try await withServer(Self.serve(pages)) { server in
            let events = try await Self.events(source(server.url))
            #expect(
                events == [
                    "enter ", "unreadable gone", "unreadable site", "unreadable shop", "unreadable same", "file ok 3",
                    "leave",
                ])
        }
        try await withServer(Self.serve(["/": Self.page("<title>Welcome</title>")])) { server in
            await #expect(throws: FillError.self) { try await Self.events(source(server.url)) }
        }
        await #expect(throws: FillError.self) { try await Self.events(source("http://127.0.0.1:1/")) }
    }

    @Test func `the order is the page's, however late an answer is, with many questions under way at once`()
        async throws
    {
        let names = (0..<300).map { "f\($0)" }
        var pages = ["/": Self.page("<title>Index of /</title>" + names.map { "<a href=\($0)>x</a>" }.joined())]
        for (index, name) in names.enumerated() { pages["/" + name] = Self.file(String(repeating: "x", count: index)) }
        try await withServer(Self.serve(pages)) { server in
            let events = try await Self.events(source(server.url))
            #expect(events == ["enter "] + names.enumerated().map { "file \($1) \($0)" } + ["leave"])
            #expect(server.accepted > 8, "several at once")
            #expect(server.accepted < 150, "connections are used again")
            #expect(server.requests.filter { $0.method == "HEAD" }.count == 300)
        }
    }

    @Test(arguments: [405, 501, 403])
    func `a server that does not answer HEAD is asked for the first byte`(status: Int) async throws {
        let sample = Sample()
        try await withServer { request in
            if request.method == "HEAD" { return FaultServer.Reply(status: status) }
            if request.range == nil { return Self.page("<title>Index of</title><a href=file>f</a><a href=none>n</a>") }
            if request.target == "/none" {
                return FaultServer.Reply(
                    status: 416, headers: ["Content-Range": "bytes */0", "ETag": "\"empty\""])
            }
            return sample.answer(request)
        } _: { server in
            let events = try await Self.events(source(server.url))
            #expect(events == ["enter ", "file file 1000000", "file none 0", "leave"])
        }
    }

    @Test func `a server that fails now and then is asked again`() async throws {
        let pages = [
            "/": Self.page("<title>Index of</title><a href=d/>x</a>"),
            "/d/": Self.page("<title>Index of</title><a href=f>x</a>"),
            "/d/f": Self.file("abc"),
        ]
        let asked = Mutex<[String: Int]>([:])
        try await withServer { request in
            let count = asked.withLock {
                $0[request.target, default: 0] += 1
                return $0[request.target] ?? 0
            }
            return count < 3 ? FaultServer.Reply(status: 503) : Self.serve(pages)(request)
        } _: { server in
            let events = try await Self.events(source(server.url))
            #expect(events == ["enter ", "enter d", "file d/f 3", "leave", "leave"])
            #expect(server.requests.count == 9)
        }
    }

    @Test func `links that lead round in circles come to an end`() async throws {
        try await withServer { _ in
            Self.page("<title>Index of</title><a href='\(String(repeating: "d", count: 250))/'>d</a>")
        } _: { server in
            let events = try await Self.events(source(server.url))
            #expect(events.filter { $0.hasPrefix("unreadable") }.count == 1)
            #expect(events.count < 50)
        }
    }
}
