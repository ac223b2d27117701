import HSMCore
import HSMRemotes
import HSMRemotesHTTP

/// One answer of ListObjectsV2.
package struct BucketPage: Equatable, Sendable {
    package struct Object: Equatable, Sendable {
        /// UTF-8.
        package var key: [UInt8] = []
        package var tag = ""
        package var size = -1
        /// Seconds since 1970.
        package var modified: RemoteEntry.Time?
    }

    package private(set) var objects: [Object] = []
    /// What to ask the next page with; nil after the last one.
    package private(set) var nextToken: String?

    /// - Throws: `.remoteFailed` for anything but a whole answer.
    package init(_ bytes: [UInt8]) throws(FillError) {
        guard let elements = XMLElements(bytes), elements.first?.path == "ListBucketResult" else {
            throw FillError(.io, .remoteFailed, "the store's listing is not the XML that S3 answers with")
        }
        let isEncoded = elements.contains { $0.path == "ListBucketResult/EncodingType" && $0.text == Array("url".utf8) }
        var isTruncated = false
        for element in elements {
            let text = String(decoding: element.text, as: UTF8.self)
            switch element.path.dropFirst("ListBucketResult/".count) {
            case "Contents": objects.append(Object())
            case "Contents/Key": try change { $0.key = isEncoded ? Self.decode(element.text) : element.text }
            case "Contents/ETag": try change { $0.tag = text.isEmpty || text.hasPrefix("\"") ? text : "\"\(text)\"" }
            case "Contents/Size": try change { $0.size = Int(text) ?? -1 }
            case "Contents/LastModified": try change { $0.modified = RemoteEntry.Time(iso8601: text) }
            case "IsTruncated": isTruncated = text == "true"
            case "NextContinuationToken": nextToken = text
            default: break
            }
        }
        if !isTruncated { nextToken = nil }
        if isTruncated && nextToken == nil
            || objects.contains(where: { $0.key.isEmpty || $0.size < 0 || $0.tag.isEmpty })
        {
            throw FillError(.io, .remoteFailed, "the store's listing leaves something out")
        }
    }

    private mutating func change(_ body: (inout Object) -> Void) throws(FillError) {
        guard !objects.isEmpty else { throw FillError(.io, .remoteFailed, "the store's listing is out of order") }
        body(&objects[objects.count - 1])
    }

    /// As forms encode: a space is `+`.
    private static func decode(_ text: [UInt8]) -> [UInt8] {
        PercentEncoding.decode(text.map { $0 == 0x2b ? 0x20 : $0 }) ?? []
    }
}

/// The elements of a small XML document, in the order in which they begin. There is no more of XML here than S3's answers
/// have: no document types, and attributes are passed over.
package struct XMLElements: Sequence {
    package struct Element {
        /// Names from the top down, joined by `/`, without the prefixes of name spaces.
        package let path: String
        /// What stands directly in it.
        package var text: [UInt8] = []
    }

    private var all: [Element] = []

    package var first: Element? { all.first }
    package func makeIterator() -> Array<Element>.Iterator { all.makeIterator() }

    /// Nil when it is not well-formed.
    package init?(_ bytes: [UInt8]) {
        var rest = bytes[...]
        /// The elements that have not ended: their names and places in ``all``.
        var open: [(name: String, index: Int)] = []
        while let byte = rest.first {
            guard byte == 0x3c else {
                let text = rest.prefix { $0 != 0x3c }
                rest = rest[text.endIndex...]
                if let (_, index) = open.last {
                    guard let plain = Self.withoutReferences(text) else { return nil }
                    all[index].text += plain
                }
                continue
            }
            guard let end = rest.firstIndex(of: 0x3e) else { return nil }
            let tag = rest[(rest.startIndex + 1)..<end]
            rest = rest[(end + 1)...]
            if tag.first == 0x3f || tag.first == 0x21 { continue }
            let isEnd = tag.first == 0x2f
            let full = String(decoding: tag.drop { $0 == 0x2f }.prefix { $0 > 0x20 && $0 != 0x2f }, as: UTF8.self)
            let name = full.split(separator: ":").last.map(String.init) ?? ""
            if isEnd {
                guard open.popLast()?.name == name else { return nil }
                continue
            }
            let parent = open.last.map { all[$0.index].path + "/" } ?? ""
            all.append(Element(path: parent + name))
            if tag.last != 0x2f { open.append((name, all.count - 1)) }
        }
        if !open.isEmpty || all.isEmpty { return nil }
    }

    private static func withoutReferences(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            guard byte == 0x26 else {
                result.append(byte)
                continue
            }
            let name = String(decoding: rest.prefix { $0 != 0x3b }, as: UTF8.self)
            rest = rest.dropFirst(name.utf8.count + 1)
            let number = name.hasPrefix("#x") ? UInt32(name.dropFirst(2), radix: 16) : UInt32(name.dropFirst())
            switch name {
            case "amp": result.append(0x26)
            case "lt": result.append(0x3c)
            case "gt": result.append(0x3e)
            case "quot": result.append(0x22)
            case "apos": result.append(0x27)
            default:
                guard name.hasPrefix("#"), let scalar = number.flatMap(Unicode.Scalar.init) else { return nil }
                result += Array(String(Character(scalar)).utf8)
            }
        }
        return result
    }
}

extension RemoteEntry.Time {
    /// `2026-11-24T00:16:24.123Z`, as S3 writes times; nil for anything else.
    package init?(iso8601 text: String) {
        let parts = text.split { "-T:Z".contains($0) }
        guard parts.count == 6, text.last == "Z", let seconds = RemoteEntry.Time(decimal: parts[5]) else { return nil }
        let numbers = parts.prefix(5).compactMap { Int($0) }
        guard numbers.count == 5, (1...12).contains(numbers[1]), (1...31).contains(numbers[2]) else { return nil }
        let day = HTTPDate.days(year: numbers[0], month: numbers[1], day: numbers[2])
        let whole = day * 86_400 + numbers[3] * 3600 + numbers[4] * 60 + seconds.seconds
        self.init(seconds: whole, nanoseconds: seconds.nanoseconds)
    }

    /// Seconds since 1970 with any number of digits behind a point, of which nine count; nil for anything else.
    package init?(decimal text: some StringProtocol) {
        let isNegative = text.hasPrefix("-")
        let parts = text.dropFirst(isNegative ? 1 : 0).split(separator: ".", omittingEmptySubsequences: false)
        let digits = parts.count > 1 ? String(parts[1].prefix(9)) : ""
        guard (1...2).contains(parts.count), let whole = Int(parts[0]), whole >= 0, whole < 1 << 48,
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
