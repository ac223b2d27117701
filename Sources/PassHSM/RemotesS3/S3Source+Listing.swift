import HSMCore
import HSMRemotes

/// Importing: the bucket's pages, one after the other and none kept, and each object's head (64 at once), because a listing
/// tells neither the metadata that programs keep nor checksums.
extension S3Source {
    private static let width = 64
    /// PATH_MAX, bytes.
    private static let maxTarget = 4096

    package func list(_ body: (RemoteEvent) throws -> Void) async throws {
        var tree = Tree()
        var token: String?
        try body(.enter(RemoteEntry(name: [], kind: .directory, metadata: .init())))
        repeat {
            let asked = token
            let page = try await retries.retrying { () throws(FillError) in try await self.page(after: asked) }
            guard token == nil || page.nextToken != token else {
                throw FillError(.io, .remoteFailed, "\(location): the store gives the same page again and again")
            }
            try await page.objects.mapInOrder(width: Self.width) { object in
                await self.look(object)
            } body: { object, found in
                try tree.add(Array(object.key.dropFirst(self.address.prefix.count)), found, body)
            }
            token = page.nextToken
        } while token != nil
        try tree.events.finish(body)
        try body(.leave)
    }

    /// What is known of one object of the listing: of the marker of a directory, only the metadata counts.
    private func look(_ object: BucketPage.Object) async -> Result<Found, FillError> {
        let path = Array(object.key.dropFirst(address.prefix.count))
        let isMarker = path.last == 0x2f
        let key = RemoteKey(isMarker ? path.dropLast() : path)
        // The prefix's own marker, and what is reported anyway.
        if path.isEmpty || Self.fault(in: key.bytes) != nil || isMarker && object.size > 0 {
            return .success(Found(ObjectHead(object, key)))
        }
        guard readsMetadata else { return .success(Found(ObjectHead(object, key))) }
        do throws(FillError) {
            let head = try await retries.retrying { () throws(FillError) -> ObjectHead in
                try await self.head(key, suffix: isMarker ? [0x2f] : [])
            }
            let isSymlink = head.isSymlink && !isMarker
            return .success(Found(head, target: isSymlink ? try await target(head.object) : nil))
        } catch {
            return .failure(error)
        }
    }

    private func target(_ object: RemoteObject) async throws(FillError) -> [UInt8] {
        guard object.size < Self.maxTarget else {
            throw FillError(.io, .remoteFailed, "a symlink with a target of \(object.size) bytes")
        }
        let content = try await retries.retrying { () throws(FillError) -> [UInt8] in
            var content: [UInt8] = []
            try await read(object, range: 0..<object.size) { content += $0 }
            return content
        }
        // s3fs cuts off what is around it too.
        let isSpace = { (byte: UInt8) in [0x20, 0x09, 0x0a, 0x0d].contains(byte) }
        let target = content.drop(while: isSpace).reversed().drop(while: isSpace).reversed()
        guard !target.isEmpty, !target.contains(0) else {
            throw FillError(.io, .remoteFailed, "a symlink without a target")
        }
        return Array(target)
    }

    /// What an import reports of one object.
    private struct Found {
        let head: ObjectHead
        let kind: RemoteEntry.Kind

        /// - Parameter target: of a symlink.
        init(_ head: ObjectHead, target: [UInt8]? = nil) {
            self.head = head
            kind = target.map { .symlink(target: $0) } ?? .file(head.object)
        }
    }

    /// The tree that keys in order make.
    private struct Tree {
        var events = PathEvents()
        private var files = PathPrefixes()
        private var last: [UInt8] = []

        mutating func add(
            _ path: [UInt8], _ found: Result<Found, FillError>, _ body: (RemoteEvent) throws -> Void
        ) throws {
            guard !path.isEmpty, !path.starts(with: ".passhsm/".utf8), path != Array(".passhsm".utf8) else { return }
            guard last.isEmpty || last.lexicographicallyPrecedes(path) else {
                throw FillError(
                    .io, .remoteFailed, "the store's listing is not in the order of the keys: \(RemoteKey(path))")
            }
            last = path
            let isMarker = path.last == 0x2f
            let name = isMarker ? Array(path.dropLast()) : path
            if let fault = S3Source.fault(in: name) { return try report(path, "no path: \(fault)", body) }
            switch found {
            case .failure(let error):
                if error.reason == .cancelled { throw error }
                try events.go(to: path, body)
                try body(.unreadable(RemoteKey(name), error))
            case .success(let found):
                let head = found.head
                if isMarker && head.object.size > 0 {
                    return try report(path, "an object with content, whose name ends with a slash", body)
                }
                if files.add(path) != nil {
                    return try report(path, "it is below an object that is a file", body)
                }
                if isMarker { return try events.enter(name, head.metadata, body) }
                try events.go(to: path, body)
                let last = Array(name.split(separator: 0x2f).last ?? [])
                try body(.entry(RemoteEntry(name: last, kind: found.kind, metadata: head.metadata)))
            }
        }

        /// Under the directory that is entered: the key itself may be no path.
        private func report(_ key: [UInt8], _ cause: String, _ body: (RemoteEvent) throws -> Void) throws {
            try body(.unreadable(RemoteKey(key), FillError(.io, .remoteFailed, "the key cannot be a file: \(cause)")))
        }
    }
}

extension ObjectHead {
    /// What the listing itself tells.
    fileprivate init(_ object: BucketPage.Object, _ key: RemoteKey) {
        var metadata = RemoteEntry.Metadata()
        metadata.modificationTime = object.modified
        self.init(
            RemoteObject(key: key, version: RemoteVersion(Array(object.tag.utf8)), size: object.size), metadata)
    }
}
