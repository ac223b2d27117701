import FaultServers
import HSMCore
import HSMSystem
import Testing

@testable import HSMRemotes

/// Index pages of servers that mean no good, or have symlinks.
@Suite struct HTTPHostileListingTests {
    /// A server of directories, whose links are names of others: pages of their names, and files of one byte.
    private struct Tree: Sendable {
        /// By names; the top is the empty one.
        var directories: [String: [String]]
        /// What names of directories mean, where it is not `directories` themselves.
        var links: [String: String] = [:]

        func answer(_ request: FaultServer.Request) -> FaultServer.Reply {
            var place = ""
            var followed = 0
            let names = request.target.split(separator: "/").map(String.init)
            for (index, name) in names.enumerated() {
                guard let list = directories[place] else { return FaultServer.Reply(status: 404) }
                if list.contains(name), index == names.count - 1, !request.target.hasSuffix("/") {
                    var reply = FaultServer.Reply(headers: ["ETag": "\"e\""], body: [0x78])
                    if request.method == "HEAD" { reply.headers["Content-Length"] = "1" }
                    return reply
                }
                guard list.contains(name + "/") else { return FaultServer.Reply(status: 404) }
                if let target = links[name] {
                    followed += 1
                    place = target
                } else {
                    place = name
                }
                // As Linux has it.
                if followed > 40 { return FaultServer.Reply(status: 500) }
            }
            let links = (directories[place] ?? []).map { "<a href=\"\($0)\">\($0)</a>\n" }.joined()
            return HTTPListingTests.page("<title>Index of \(request.target)</title>\n\(links)")
        }
    }

    @Test func `symlinks that lead round in circles are told, and everything else is listed`() async throws {
        let tree = Tree(
            directories: ["": ["d/"], "d": ["f", "one/", "own/", "two/"], "own": ["g", "up/"]],
            links: ["one": "d", "two": "d", "up": "d"])
        try await withServer(tree.answer) { server in
            let events = try await HTTPListingTests.events(source(server.url))
            #expect(
                events == [
                    "enter ", "enter d", "file d/f 1", "unreadable d/one", "enter d/own", "file d/own/g 1",
                    "unreadable d/own/up", "leave", "unreadable d/two", "leave", "leave",
                ])
            #expect(server.requests.count < 100)
        }
    }

    @Test func `a server that has the same page everywhere is told`() async throws {
        let page = HTTPListingTests.page("<title>Index of</title><a href=a/>a</a><a href=b/>b</a>")
        try await withServer({ _ in page }) { server in
            let events = try await HTTPListingTests.events(source(server.url))
            #expect(events == ["enter ", "unreadable a", "unreadable b", "leave"])
        }
    }

    @Test func `directories that list what those above them list are no circle`() async throws {
        let isFile = { @Sendable (target: String) in target.split(separator: "/").count == 4 && !target.hasSuffix("/") }
        let handler = { @Sendable (request: FaultServer.Request) -> FaultServer.Reply in
            if isFile(request.target) {
                return HTTPListingTests.serve([request.target: HTTPListingTests.file("x")])(request)
            }
            let depth = request.target.split(separator: "/").count
            if depth > 3 { return FaultServer.Reply(status: 404) }
            let slash = depth < 3 ? "/" : ""
            return HTTPListingTests.page("<title>Index of</title><a href=0\(slash)>0</a><a href=1\(slash)>1</a>")
        }
        try await withServer(handler) { server in
            let events = try await HTTPListingTests.events(source(server.url))
            #expect(events.filter { $0.hasPrefix("file ") }.count == 16)
            #expect(events.filter { $0.hasPrefix("unreadable ") }.isEmpty)
        }
    }

    @Test(arguments: ["<a ", "<a href=", "<a href='", "<", "&amp", "<a href=x", "<title>"])
    func `a page is read in a time that grows with its size only`(piece: String) throws {
        let place = try WebAddress(BytePath("http://h/t/"))
        let start = "<title>Index of /t</title><a href=f>f</a>"
        let page = Array((start + String(repeating: piece, count: 50_000)).utf8)
        #expect(try HTTPIndexPage(html: page, of: place).names.first?.bytes == Array("f".utf8))
        #expect(throws: FillError.self) { try HTTPIndexPage(html: Array(page.dropFirst(start.count)), of: place) }
    }

    @Test func `a page without an end is told, and does not fill the memory`() async throws {
        let page = HTTPListingTests.page("<title>Index of</title><a href=e/>e</a><a href=f>f</a>")
        let endless = [UInt8](repeating: 0x20, count: ListingBudget.maxPage + 1)
        let pages = ["/": page, "/f": HTTPListingTests.file("1")]
        try await withServer({ request in
            if request.target == "/e/" {
                return FaultServer.Reply(body: Array("<title>Index of</title>".utf8) + endless)
            }
            return HTTPListingTests.serve(pages)(request)
        }) { server in
            let events = try await HTTPListingTests.events(source(server.url))
            #expect(events == ["enter ", "unreadable e", "file f 1", "leave"])
        }
    }

    @Test func `names that are held at once are bounded`() throws {
        let budget = ListingBudget()
        let place = try WebAddress(BytePath("http://h/"))
        let links = (0..<1000).map { "<a href=\($0)>" }.joined()
        let page = try HTTPIndexPage(html: Array("<title>Index of</title>\(links)".utf8), of: place)
        #expect(page.names.count == 1000)
        let most = ListingBudget.maxNames / page.cost
        for _ in 0..<most { try budget.hold(page, of: "x") }
        #expect(throws: FillError.self) { try budget.hold(page, of: "x") }
        budget.drop(page)
        try budget.hold(page, of: "x")
    }
}
