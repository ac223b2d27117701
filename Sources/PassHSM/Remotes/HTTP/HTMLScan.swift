/// Reads a page of HTML once, from beginning to end. Each byte is read a fixed number of times, whatever the page
/// contains. Upper and lower case of ASCII letters are equal.
struct HTMLScan {
    private let page: [UInt8]
    private var position = 0

    init(_ page: [UInt8]) { self.page = page }

    /// The content of the first `<title>`; nil when there is none, or when it is longer than ``maxTitle``.
    func title() -> ArraySlice<UInt8>? {
        guard let start = firstIndex(of: "<title>", from: 0) else { return nil }
        let rest = page[(start + "<title>".utf8.count)...].prefix(Self.maxTitle)
        guard let end = firstIndex(of: "</title>", from: rest.startIndex, to: rest.endIndex) else { return nil }
        return page[rest.startIndex..<end]
    }

    /// Room for a path with escapes, twice.
    private static let maxTitle = 64 << 10

    /// Whether the page contains `text`, which must be in lower case.
    func contains(_ text: StaticString) -> Bool { firstIndex(of: text, from: 0) != nil }

    private func firstIndex(of text: StaticString, from start: Int, to end: Int? = nil) -> Int? {
        text.withUTF8Buffer { text in
            let last = (end ?? page.count) - text.count
            guard start <= last else { return nil }
            return (start...last).first { index in
                text.indices.allSatisfy { Self.lower(page[index + $0]) == text[$0] }
            }
        }
    }

    private static func lower(_ byte: UInt8) -> UInt8 { (0x41...0x5a).contains(byte) ? byte | 0x20 : byte }
    private static func isSpace(_ byte: UInt8) -> Bool { byte <= 0x20 }

    private var next: UInt8? { position < page.count ? page[position] : nil }

    /// Skips bytes while `condition` holds, and returns them.
    private mutating func skip(while condition: (UInt8) -> Bool) -> ArraySlice<UInt8> {
        let start = position
        while let byte = next, condition(byte) { position += 1 }
        return page[start..<position]
    }

    /// The `href` of the next `<a>` that has one, with HTML's escapes; nil at the end.
    ///
    /// A tag also ends where the next one begins, because some pages forget the end. A quoted value may contain any
    /// byte. A quoted value without a closing quote is ignored, and so is everything after it.
    mutating func nextLink() -> ArraySlice<UInt8>? {
        while true {
            _ = skip { $0 != 0x3c }
            guard next != nil else { return nil }
            position += 1
            guard let letter = next, Self.lower(letter) == 0x61 else { continue }
            position += 1
            guard let space = next, Self.isSpace(space) else { continue }
            if let link = attribute() { return link }
        }
    }

    /// The `href` of the tag whose name was just read. The position moves behind it.
    private mutating func attribute() -> ArraySlice<UInt8>? {
        while let byte = next, byte != 0x3e, byte != 0x3c {
            if Self.isSpace(byte) || byte == 0x2f {
                position += 1
                continue
            }
            let start = position
            position += 1
            _ = skip { !Self.isSpace($0) && $0 != 0x3d && $0 != 0x3e && $0 != 0x3c && $0 != 0x2f }
            let isLink = page[start..<position].lazy.map(Self.lower).elementsEqual("href".utf8)
            _ = skip(while: Self.isSpace)
            guard next == 0x3d else { continue }
            position += 1
            _ = skip(while: Self.isSpace)
            guard let value = value() else { return nil }
            if isLink { return value }
        }
        return nil
    }

    private mutating func value() -> ArraySlice<UInt8>? {
        guard let quote = next, quote == 0x22 || quote == 0x27 else { return skip { !Self.isSpace($0) && $0 != 0x3e } }
        position += 1
        let value = skip { $0 != quote }
        guard next != nil else { return nil }
        position += 1
        return value
    }
}
