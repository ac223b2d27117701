import Glibc
import HSMCore
import HSMSystem
import NIOHTTP1

@testable import HSMRemotes

// What a server of a remote tier sends, and what names one.

extension FuzzTarget {
    static let remotes = [
        FuzzTarget(name: "bucket-page", check: bucketPage),
        FuzzTarget(name: "index-html", check: indexHTML),
        FuzzTarget(name: "index-json", check: indexJSON),
        FuzzTarget(name: "manifest", check: manifest),
        FuzzTarget(name: "answer-head", maxLength: 1024, check: answerHead),
        FuzzTarget(name: "location", maxLength: 512, check: location),
        FuzzTarget(name: "source-identity", maxLength: 512, check: sourceIdentity),
        FuzzTarget(name: "directory-version", maxLength: 64, check: directoryVersion),
    ]

    /// An answer of ListObjectsV2: XML.
    private static func bucketPage(_ input: [UInt8]) throws {
        do {
            let page = try BucketPage(input)
            let bytes = page.objects.reduce(page.nextToken?.utf8.count ?? 0) { $0 + $1.key.count + $1.tag.utf8.count }
            // A character of the input that is not UTF-8 becomes three bytes, and quotes are added to a tag.
            try expect(bytes <= 3 * input.count + 2 * page.objects.count, "\(bytes) bytes of keys and tags")
            for object in page.objects {
                try expect(!object.key.isEmpty && object.size >= 0 && !object.tag.isEmpty, "an object with a gap")
                try object.modified.map(expectTime)
            }
            try expect(page.nextToken?.isEmpty != true, "the next page has an empty token")
        } catch let error as FillError { try expectMessage(error.cause, about: input) }
        if let credentials = TemporaryCredentials(xml: input)?.credentials {
            try expect(credentials.sessionToken != nil, "credentials of a role without a token")
        }
    }

    /// A page of links. The first line is its URL where that is one.
    private static func indexHTML(_ input: [UInt8]) throws {
        let url = BytePath(input.prefix { $0 != 0x0a })
        let address = try? WebAddress(url.bytes.starts(with: "http".utf8) ? url : BytePath("http://host/pub/dir/"))
        guard let address else { return }
        do { try expectNames(try HTTPIndexPage(html: input, of: address), input) } catch let error as FillError {
            try expectMessage(error.cause, about: input)
        }
    }

    private static func indexJSON(_ input: [UInt8]) throws {
        do { try expectNames(try HTTPIndexPage(json: input, of: "http://host/"), input) } catch let error as FillError {
            try expectMessage(error.cause, about: input)
        }
    }

    private static func expectNames(_ page: HTTPIndexPage, _ input: [UInt8]) throws(FuzzFinding) {
        for name in page.names { try expectName(name.bytes) }
        try expect(Set(page.names.map(\.bytes)).count == page.names.count, "a name is there twice")
        let bytes = page.names.reduce(0) { $0 + $1.bytes.count }
        try expect(bytes <= 3 * input.count, "\(bytes) bytes of names")
    }

    private static func manifest(_ input: [UInt8]) throws {
        let manifest: HTTPManifest
        do throws(LocationError) { manifest = try HTTPManifest(input) } catch {
            return try expectMessage(error.description, about: input)
        }
        var previous: [UInt8] = []
        for entry in manifest.entries {
            try expect(entry.size >= 0 && (entry.permissions ?? 0) <= 0o7777, "a size or mode out of bounds")
            for name in entry.path.split(separator: 0x2f, omittingEmptySubsequences: false) {
                try expectName(Array(name))
            }
            try expect(previous.lexicographicallyPrecedes(entry.path), "paths are not in order, or twice")
            try expect(!entry.path.starts(with: previous + [0x2f]) || previous.isEmpty, "a file below a file")
            previous = entry.path
            try entry.modified.map(expectTime)
        }
    }

    /// A status, and lines of headers: of a read on condition, and of a HEAD.
    private static func answerHead(_ input: [UInt8]) throws {
        let lines = lines(input)
        var headers = HTTPHeaders()
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            // The client lets no other name come through.
            if parts.count == 2, parts[0].utf8.allSatisfy({ $0 < 0x80 }) {
                headers.add(name: String(parts[0]), value: parts[1].trimmed)
            }
        }
        let status = HTTPResponseStatus(statusCode: Int(UInt16(lines[0]) ?? 206))
        let key = RemoteKey(Array("key".utf8))
        let (range, size) = (10..<20, 100)
        if let tag = HTTPVersionTag(headers, size: size) {
            try expect(HTTPVersionTag(tag.version) == tag, "\(tag) is not the version that is recorded of it")
            try expect(tag.version.bytes.count <= 255, "a version of \(tag.version.bytes.count) bytes")
            var conditions = HTTPHeaders()
            tag.addCondition(to: &conditions)
            let object = RemoteObject(key: key, version: tag.version, size: size)
            do {
                let answer = try HTTPAnswer(status: status, headers: headers, range: range, of: object)
                try expect([0, range.lowerBound].contains(answer.skipped), "\(answer.skipped) bytes are skipped")
                try expect(answer.isPart == (answer.skipped == 0), "a part that is not the range")
            } catch let error as FillError { try expectMessage(error.cause, about: input) }
        }
        do {
            let head = try ObjectHead(headers, key)
            try expect(
                head.object.size >= 0 && head.object.version.bytes.count <= 255, "a size or version out of bounds")
            try expect((head.metadata.permissions ?? 0) <= 0o7777, "permissions with more than permissions")
            try head.metadata.modificationTime.map(expectTime)
        } catch let error as FillError { try expectMessage(error.cause, about: input) }
        for line in lines {
            if let range = ContentRange(line) {
                try expect(range.bytes.map { $0.lowerBound >= 0 && !$0.isEmpty } ?? true, "an empty range")
                try expect((range.total ?? .max) >= range.bytes?.upperBound ?? 0, "a range beyond the end")
            }
            if let seconds = HTTPDate.seconds(line) {
                let back = HTTPDate.seconds(HTTPDate.text(seconds))
                try expect(back == seconds, "\(seconds) is \(HTTPDate.text(seconds)), and that is \(back ?? -1)")
            }
            try RemoteEntry.Time(decimal: line).map(expectTime)
            try RemoteEntry.Time(iso8601: line).map(expectTime)
        }
    }

    /// What the configuration has of a source's file system.
    private static func sourceIdentity(_ input: [UInt8]) throws {
        do {
            let identity = try SourceIdentity(text: String(decoding: input, as: UTF8.self))
            try expect(
                try SourceIdentity(text: identity.text) == identity, "an identity that is written is read as another")
            try expect(identity.isSame(as: identity), "an identity is not its own")
        } catch let error as LocationError { try expectMessage(error.description, about: input) }
    }

    /// A version that a record has, beside one that is found.
    private static func directoryVersion(_ input: [UInt8]) throws {
        let half = input.count / 2
        let key = RemoteKey([0x6b])
        let recorded = RemoteObject(key: key, version: RemoteVersion(Array(input[..<half])), size: 1)
        let found = RemoteObject(key: key, version: RemoteVersion(Array(input[half...])), size: 1)
        try expect(DirectoryVersion.agrees(found, with: found), "a version differs from itself")
        if DirectoryVersion.agrees(recorded, with: found) {
            try expect(
                DirectoryVersion.agrees(recorded, with: found, isMoved: true), "what agrees does not when it is moved")
        }
        var longer = found
        longer.size = 2
        try expect(!DirectoryVersion.agrees(recorded, with: longer), "another size agrees")
    }

    private static func location(_ input: [UInt8]) throws {
        do {
            let location = try RemoteLocation(BytePath(input))
            let again = try RemoteLocation(location.url)
            try expect(
                "\(again.address)" == "\(location.address)",
                "\(location.url) is another place than it was made of: \(again.url)")
            try expectMessage(location.url, about: input)
        } catch let error as LocationError { try expectMessage(error.description, about: input) }
        do throws(LocationError) { _ = try SimulatedBehaviour(String(decoding: input, as: UTF8.self)) } catch {
            try expectMessage(error.description, about: input)
        }
        let encoded = PercentEncoding.encode(input, encodesSlash: input.count % 2 == 0)
        try expect(PercentEncoding.decode(encoded.utf8) == input, "\(encoded) is not what was encoded")
    }

    /// One that utimensat(2) takes.
    private static func expectTime(_ time: RemoteEntry.Time) throws(FuzzFinding) {
        try expect((0..<1_000_000_000).contains(time.nanoseconds), "\(time.nanoseconds) ns")
    }
}
