import AsyncHTTPClient
import HSMCore
import HSMRemotes
import NIOHTTP1

/// Importing: index pages are followed down, or a manifest is gone through; and every file is asked for its version (HEAD),
/// 64 at once, because no listing tells ETags, nor sizes and times exactly.
extension HTTPSource {
    /// Requests under way at once.
    private static let width = 64
    private static let longestPage = 256 << 20
    /// A server whose links lead round in circles stops there: Linux has no longer paths.
    private static let longestPath = 4096

    /// One name of a directory, with what there is to be known of it.
    private enum Found: Sendable {
        case file(RemoteEntry)
        case directory(name: [UInt8], [HTTPIndexPage.Name])
        case unreadable(FillError)
    }

    package func list(_ body: (RemoteEvent) throws -> Void) async throws {
        if let manifest { return try await list(manifest, body) }
        let names = try await page(of: [])
        try body(.enter(Self.directory([])))
        try await list(names, below: [], body)
        try body(.leave)
    }

    private func list(
        _ names: [HTTPIndexPage.Name], below path: [UInt8], _ body: (RemoteEvent) throws -> Void
    ) async throws {
        // A lower directory's own data, should the source be one.
        let names = path.isEmpty ? names.filter { $0.bytes != Array(".passhsm".utf8) } : names
        try await names.mapInOrder(width: Self.width) { name in
            await self.look(name, Self.join(path, name.bytes))
        } body: { name, found in
            let key = Self.join(path, name.bytes)
            switch found {
            case .file(let entry): try body(.entry(entry))
            case .directory(let name, let names):
                try body(.enter(Self.directory(name)))
                try await list(names, below: key, body)
                try body(.leave)
            case .unreadable(let error):
                if error.reason == .cancelled { throw error }
                try body(.unreadable(RemoteKey(key), error))
            }
        }
    }

    private func look(_ name: HTTPIndexPage.Name, _ path: [UInt8]) async -> Found {
        do throws(FillError) {
            if name.isDirectory { return .directory(name: name.bytes, try await page(of: path + [0x2f])) }
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

    /// The names that the server's page about a directory lists.
    private func page(of path: [UInt8]) async throws(FillError) -> [HTTPIndexPage.Name] {
        try await retries.retrying { () throws(FillError) in try await pageOnce(of: path) }
    }

    private func pageOnce(of path: [UInt8]) async throws(FillError) -> [HTTPIndexPage.Name] {
        let place = WebAddress(
            isEncrypted: address.isEncrypted, host: address.host, port: address.port, path: address.path + path)
        guard path.count <= Self.longestPath else {
            throw FillError(.io, .remoteFailed, "\(place.url) is too deep: the links may lead round in circles")
        }
        let response = try await transport.sendFollowing(request(.GET, place.url))
        guard response.status == .ok else {
            throw FillError(status: response.status, response.headers, RemoteKey(path), isConditional: false)
        }
        for coding in response.headers[canonicalForm: "Content-Encoding"] where coding != "identity" {
            throw FillError(.io, .remoteFailed, "\(place.url): the server answers with \(coding), unasked")
        }
        let bytes = try await response.whole(limit: Self.longestPage, name: place.url)
        if response.headers.first(name: "Content-Type")?.lowercased().hasPrefix("application/json") == true {
            return try HTTPIndexPage(json: bytes, of: place.url).names
        }
        return try HTTPIndexPage(html: bytes, of: place).names
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

    /// What the server has, with what the manifest adds.
    private func look(_ wanted: HTTPManifest.Entry) async -> Found {
        do throws(FillError) {
            var entry = try await entry(wanted.name, RemoteKey(wanted.path))
            guard case .file(var object) = entry.kind else { return .file(entry) }
            guard object.size == wanted.size else {
                throw FillError(
                    .io, .remoteFailed,
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
