import AsyncHTTPClient
import HSMCore
import NIOHTTP1

/// Importing. Index pages are followed downwards, or a manifest is read. Every file is asked for its version (HEAD), 64
/// at once, because listings tell neither ETags nor exact sizes and times.
extension HTTPSource {
    /// How many requests are under way at once.
    private static let width = 64
    /// The longest path in Linux, in bytes.
    private static let maxPath = 4096

    /// One name of a directory, with what the server tells about it.
    private enum Found: Sendable {
        case file(RemoteEntry)
        case directory(name: [UInt8], HTTPIndexPage)
        case unreadable(FillError)
    }

    package func list(_ body: (RemoteEvent) throws -> Void) async throws {
        if let manifest { return try await list(manifest, body) }
        let budget = ListingBudget()
        let top = try await page(of: [], budget)
        try body(.enter(Self.directory([])))
        var circles = LinkCircles()
        try await list(top, of: [], budget, &circles, body)
        try body(.leave)
    }

    private func list(
        _ page: HTTPIndexPage, of path: [UInt8], _ budget: ListingBudget, _ circles: inout LinkCircles,
        _ body: (RemoteEvent) throws -> Void
    ) async throws {
        // The folder with a lower directory's own data is left out, in case the source is a lower directory.
        let names = path.isEmpty ? page.names.filter { $0.bytes != Array(".passhsm".utf8) } : page.names
        circles.enter(path, page)
        defer { circles.leave() }
        let above = circles
        try await names.mapInOrder(width: Self.width) { name in
            await self.look(name, Self.join(path, name.bytes), budget, above)
        } body: { name, found in
            let key = Self.join(path, name.bytes)
            switch found {
            case .file(let entry): try body(.entry(entry))
            case .directory(let name, let page):
                defer { budget.drop(page) }
                try body(.enter(Self.directory(name)))
                try await list(page, of: key, budget, &circles, body)
                try body(.leave)
            case .unreadable(let error):
                if error.reason == .cancelled { throw error }
                try body(.unreadable(RemoteKey(key), error))
            }
        }
    }

    private func look(
        _ name: HTTPIndexPage.Name, _ path: [UInt8], _ budget: ListingBudget, _ above: LinkCircles
    ) async -> Found {
        do throws(FillError) {
            if name.isDirectory {
                let page = try await page(of: path + [0x2f], budget)
                do throws(FillError) { try await expectNoCircle(page, path, budget, above) } catch {
                    budget.drop(page)
                    throw error
                }
                return .directory(name: name.bytes, page)
            }
            return .file(try await entry(name.bytes, RemoteKey(path)))
        } catch {
            return .unreadable(error)
        }
    }

    private func entry(_ name: [UInt8], _ key: RemoteKey) async throws(FillError) -> RemoteEntry {
        let (object, modified) = try await retries.retrying { () throws(FillError) in try await current(key) }
        var metadata = RemoteEntry.Metadata()
        metadata.modificationTime = modified
        return RemoteEntry(name: name, kind: .file(object), metadata: metadata)
    }

    private func expectNoCircle(
        _ page: HTTPIndexPage, _ path: [UInt8], _ budget: ListingBudget, _ circles: LinkCircles
    ) async throws(FillError) {
        guard let (probe, top) = circles.suspicion(path, page, maxPath: Self.maxPath) else { return }
        let found: HTTPIndexPage
        do throws(FillError) { found = try await pageOnce(of: probe + [0x2f], budget) } catch {
            if error.reason == .cancelled { throw error }
            // The probe leads nowhere, or too deep to tell.
            return
        }
        defer { budget.drop(found) }
        guard found.names == page.names else { return }
        let cause =
            "\(RemoteKey(path)): the server's links lead round in circles: it is \(location)\(RemoteKey(top)) again"
        throw FillError.remoteFailed(cause)
    }

    /// Reads the server's page about a directory. The caller has to ``ListingBudget/drop(_:)`` it.
    private func page(of path: [UInt8], _ budget: ListingBudget) async throws(FillError) -> HTTPIndexPage {
        try await retries.retrying { () throws(FillError) in try await pageOnce(of: path, budget) }
    }

    private func pageOnce(of path: [UInt8], _ budget: ListingBudget) async throws(FillError) -> HTTPIndexPage {
        var place = address
        place.path += path
        guard path.count <= Self.maxPath else {
            throw FillError.remoteFailed("\(place.url) is too deep: the links may lead round in circles")
        }
        let response = try await transport.sendFollowing(request(.GET, place.url))
        guard response.status == .ok else {
            throw FillError(status: response.status, response.headers, RemoteKey(path), isConditional: false)
        }
        for coding in response.headers[canonicalForm: "Content-Encoding"] where coding != "identity" {
            throw FillError.remoteFailed("\(place.url): the server answers with \(coding), unasked")
        }
        var isLarge = false
        defer { if isLarge { budget.largePages.leave() } }
        var body = HTTPBody(response, name: place.url)
        let bytes = try await body.whole(limit: ListingBudget.maxPage, small: ListingBudget.smallPage) {
            await budget.largePages.enter()
            isLarge = true
        }
        let isJSON = response.headers.first(name: "Content-Type")?.lowercased().hasPrefix("application/json") == true
        let page = try isJSON ? HTTPIndexPage(json: bytes, of: place.url) : HTTPIndexPage(html: bytes, of: place)
        try budget.hold(page, of: place.url)
        return page
    }

    // MARK: A manifest

    private func list(_ manifest: HTTPManifest, _ body: (RemoteEvent) throws -> Void) async throws {
        var events = PathEvents()
        try body(.enter(Self.directory([])))
        try await manifest.entries.mapInOrder(width: Self.width) { entry in
            await self.look(entry)
        } body: { entry, found in
            try events.go(to: entry.path, body)
            switch found {
            case .file(let entry): try body(.entry(entry))
            case .unreadable(let error):
                if error.reason == .cancelled { throw error }
                try body(.unreadable(RemoteKey(entry.path), error))
            case .directory: break
            }
        }
        try events.finish(body)
        try body(.leave)
    }

    /// The server's entry, completed by the manifest's.
    private func look(_ wanted: HTTPManifest.Entry) async -> Found {
        do throws(FillError) {
            var entry = try await entry(wanted.name, RemoteKey(wanted.path))
            guard case .file(var object) = entry.kind else { return .file(entry) }
            guard object.size == wanted.size else {
                throw FillError.remoteFailed(
                    "\(object.key) has \(wanted.size) bytes in the manifest, and \(object.size) on the server")
            }
            object.digest = wanted.digest
            entry.kind = .file(object)
            entry.metadata.permissions = wanted.permissions
            entry.metadata.modificationTime = wanted.modified ?? entry.metadata.modificationTime
            return .file(entry)
        } catch {
            return .unreadable(error)
        }
    }

    private static func directory(_ name: [UInt8]) -> RemoteEntry {
        RemoteEntry(name: name, kind: .directory, metadata: .init())
    }

    private static func join(_ path: [UInt8], _ name: [UInt8]) -> [UInt8] { path.isEmpty ? name : path + [0x2f] + name }
}
