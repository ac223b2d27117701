import HSMCore

/// One answer to ListObjectsV2.
package struct BucketPage: Equatable, Sendable {
    /// One object of the listing.
    package struct Object: Equatable, Sendable {
        /// The key in UTF-8.
        package var key: [UInt8] = []
        package var tag = ""
        package var size = -1
        /// When the object was modified; nil where the store does not tell.
        package var modified: RemoteEntry.Time?
    }

    package private(set) var objects: [Object] = []
    /// The token to ask for the next page with; nil on the last page.
    package private(set) var nextToken: String?

    /// The largest number of objects in one page. S3 sends at most 1,000.
    private static let maxObjects = 100_000

    /// Parses an answer.
    ///
    /// - Throws: `.remoteFailed` for anything but a complete answer.
    package init(_ bytes: [UInt8]) throws(FillError) {
        var isEncoded = false
        var isTruncated = false
        var hasList = false
        do {
            try XMLReader.read(bytes) { event in
                switch event {
                case .begin("ListBucketResult"): hasList = true
                case .begin("ListBucketResult/Contents"):
                    guard objects.count < Self.maxObjects else {
                        throw Self.failure("has more than \(Self.maxObjects) objects")
                    }
                    objects.append(Object())
                case .begin: break
                case .end(let path, let text):
                    guard path.hasPrefix("ListBucketResult/") else { break }
                    switch path.dropFirst("ListBucketResult/".count) {
                    case "EncodingType": isEncoded = text.elementsEqual("url".utf8)
                    case "IsTruncated": isTruncated = text.elementsEqual("true".utf8)
                    case "NextContinuationToken": nextToken = String(decoding: text, as: UTF8.self)
                    case let name: take(name, text)
                    }
                }
            }
        } catch let error as FillError {
            throw error
        } catch {
            throw Self.failure("is not the XML that S3 answers with")
        }
        guard hasList else { throw Self.failure("is not the XML that S3 answers with") }
        if !isTruncated { nextToken = nil }
        // EncodingType may come after the objects.
        if isEncoded { for index in objects.indices { objects[index].key = Self.decode(objects[index].key) } }
        let isWhole = objects.allSatisfy { !$0.key.isEmpty && $0.size >= 0 && !$0.tag.isEmpty }
        guard isWhole, !isTruncated || nextToken != nil else { throw Self.failure("leaves something out") }
    }

    private static func failure(_ cause: String) -> FillError {
        FillError.remoteFailed("the store's listing \(cause)")
    }

    /// Takes a field of the last object.
    private mutating func take(_ name: Substring, _ bytes: [UInt8]) {
        guard name.hasPrefix("Contents/"), let last = objects.indices.last else { return }
        let text = String(decoding: bytes, as: UTF8.self)
        switch name.dropFirst("Contents/".count) {
        case "Key": objects[last].key = bytes
        case "ETag": objects[last].tag = text.isEmpty || text.hasPrefix("\"") ? text : "\"\(text)\""
        case "Size":
            // A size that does not fit is reported for this object by the importer; it does not fail the page.
            let isNumber = !bytes.isEmpty && bytes.allSatisfy { (0x30...0x39).contains($0) }
            objects[last].size = Int(digits: text) ?? (isNumber ? .max : -1)
        case "LastModified": objects[last].modified = RemoteEntry.Time(iso8601: text)
        default: break
        }
    }

    /// Decodes the encoding of forms, in which a space is `+`.
    private static func decode(_ text: [UInt8]) -> [UInt8] {
        PercentEncoding.decode(text.map { $0 == 0x2b ? 0x20 : $0 }) ?? []
    }
}

extension RemoteEntry.Time {
    /// A time as S3 writes it: `2026-11-24T00:16:24.123Z`. Nil for anything else.
    package init?(iso8601 text: String) {
        let parts = text.split { "-T:Z".contains($0) }
        guard parts.count == 6, text.last == "Z", let seconds = RemoteEntry.Time(decimal: parts[5]) else { return nil }
        let numbers = parts.prefix(5).compactMap { Int(digits: $0) }
        guard numbers.count == 5, (0...9999).contains(numbers[0]), (1...12).contains(numbers[1]),
            (1...31).contains(numbers[2]), (0...23).contains(numbers[3]), (0...59).contains(numbers[4]),
            (0...60).contains(seconds.seconds)
        else { return nil }
        let day = HTTPDate.days(year: numbers[0], month: numbers[1], day: numbers[2])
        let whole = day * 86_400 + numbers[3] * 3600 + numbers[4] * 60 + seconds.seconds
        self.init(seconds: whole, nanoseconds: seconds.nanoseconds)
    }

    /// Seconds since 1970 with any number of decimal places, of which nine count. Nil for anything else.
    package init?(decimal text: some StringProtocol) {
        let isNegative = text.hasPrefix("-")
        let parts = text.dropFirst(isNegative ? 1 : 0).split(separator: ".", omittingEmptySubsequences: false)
        let digits = parts.count > 1 ? String(parts[1].prefix(9)) : ""
        guard (1...2).contains(parts.count), let whole = Int(digits: parts[0]), whole < 1 << 48,
            parts.allSatisfy({ $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }),
            let fraction = Int(digits + String(repeating: "0", count: 9 - digits.count))
        else { return nil }
        if isNegative {
            self.init(
                seconds: -whole - (fraction > 0 ? 1 : 0), nanoseconds: fraction > 0 ? 1_000_000_000 - fraction : 0)
        } else {
            self.init(seconds: whole, nanoseconds: fraction)
        }
    }
}
