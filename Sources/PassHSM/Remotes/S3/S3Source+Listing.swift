import HSMCore

/// Importing. The bucket's pages are read one after the other, and none is kept. Each object's head is requested too,
/// 64 at once, because a listing has neither checksums nor the metadata that programs store.
extension S3Source {
    private static let width = 64
    /// PATH_MAX in bytes.
    private static let maxTarget = 4096

    package func list(_ body: (RemoteEvent) throws -> Void) async throws {
        var tree = Tree()
        var token: String?
        try body(.enter(RemoteEntry(name: [], kind: .directory, metadata: .init())))
        repeat {
            let asked = token
            let page = try await retries.retrying { () throws(FillError) in try await self.page(after: asked) }
            guard token == nil || page.nextToken != token else {
                throw FillError.remoteFailed("\(location): the store sends the same page of the listing again")
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

    /// The entry for one object of the listing. For a directory's marker, only the metadata counts.
    private func look(_ object: BucketPage.Object) async -> Result<Found, FillError> {
        let path = Array(object.key.dropFirst(address.prefix.count))
        let isMarker = path.last == 0x2f
        let key = RemoteKey(isMarker ? path.dropLast() : path)
        // The prefix's own marker, and keys that are reported as errors, need no request.
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
            throw FillError.remoteFailed("the symlink's target is too long: \(object.size) bytes")
        }
        let content = try await retries.retrying { () throws(FillError) -> [UInt8] in
            var content: [UInt8] = []
            try await read(object, range: 0..<object.size) { content += $0 }
            return content
        }
        // s3fs removes white space at both ends too.
        let isSpace = { (byte: UInt8) in [0x20, 0x09, 0x0a, 0x0d].contains(byte) }
        let target = content.drop(while: isSpace).reversed().drop(while: isSpace).reversed()
        guard !target.isEmpty, !target.contains(0) else {
            throw FillError.remoteFailed("the symlink's target is empty or has a zero byte")
        }
        return Array(target)
    }

    /// The entry that an import reports for one object.
    private struct Found {
        let head: ObjectHead
        let kind: RemoteEntry.Kind

        /// - Parameter target: the target of a symlink; nil for a file.
        init(_ head: ObjectHead, target: [UInt8]? = nil) {
            self.head = head
            kind = target.map { .symlink(target: $0) } ?? .file(head.object)
        }
    }

    /// Turns keys, which come in order, into the tree's events.
    private struct Tree {
        var events = PathEvents()
        private var files = PathPrefixes()
        private var last: [UInt8] = []

        mutating func add(
            _ path: [UInt8], _ found: Result<Found, FillError>, _ body: (RemoteEvent) throws -> Void
        ) throws {
            guard !path.isEmpty, !path.starts(with: ".passhsm/".utf8), path != Array(".passhsm".utf8) else { return }
            guard last.isEmpty || last.lexicographicallyPrecedes(path) else {
                throw FillError.remoteFailed("the store's listing is not sorted by key: \(RemoteKey(path))")
            }
            last = path
            let isMarker = path.last == 0x2f
            let name = isMarker ? Array(path.dropLast()) : path
            if let fault = S3Source.fault(in: name) { return try report(path, "it is not a path: \(fault)", body) }
            switch found {
            case .failure(let error):
                if error.reason == .cancelled { throw error }
                try events.go(to: path, body)
                try body(.unreadable(RemoteKey(name), error))
            case .success(let found):
                let head = found.head
                if isMarker && head.object.size > 0 {
                    return try report(path, "it ends with a slash, and the object has content", body)
                }
                if files.add(path) != nil {
                    return try report(path, "an object above it is a file", body)
                }
                if isMarker { return try events.enter(name, head.metadata, body) }
                try events.go(to: path, body)
                let last = Array(name.split(separator: 0x2f).last ?? [])
                try body(.entry(RemoteEntry(name: last, kind: found.kind, metadata: head.metadata)))
            }
        }

        /// Reports a key in the current directory, because the key itself may not be a path.
        private func report(_ key: [UInt8], _ cause: String, _ body: (RemoteEvent) throws -> Void) throws {
            try body(.unreadable(RemoteKey(key), FillError.remoteFailed("the key cannot be a file: \(cause)")))
        }
    }
}

extension ObjectHead {
    /// The head according to the listing alone.
    fileprivate init(_ object: BucketPage.Object, _ key: RemoteKey) {
        var metadata = RemoteEntry.Metadata()
        metadata.modificationTime = object.modified
        self.init(
            RemoteObject(key: key, version: RemoteVersion(Array(object.tag.utf8)), size: object.size), metadata)
    }
}
