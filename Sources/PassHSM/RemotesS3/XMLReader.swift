import CExpat

/// Reads a small XML document by libexpat, element by element: memory for no more than the elements that are open.
///
/// There is less of XML here than the standard has: a document type is refused, so that there are no entities but XML's own
/// five and characters by number; attributes are passed over, and so are the prefixes of name spaces.
struct XMLReader {
    enum Event {
        /// An element begins: names from the top down, joined by `/`.
        case begin(path: String)
        /// It ends: what stands directly in it, as UTF-8.
        case end(path: String, text: [UInt8])
    }

    /// Why a document is not read to its end.
    enum Failure: Error, Equatable {
        /// It is not well-formed, or breaks off.
        case malformed
        case documentType
        /// Elements stand in one another more than ``XMLReader/maxDepth`` deep, or a name has more than
        /// ``XMLReader/maxName`` bytes.
        case tooDeep
    }

    /// S3's answers have five.
    static let maxDepth = 32
    /// Bytes.
    static let maxName = 256

    /// Hands each event to `body`, in the document's order.
    ///
    /// - Throws: ``Failure``; what `body` throws, which ends the reading.
    static func read(_ bytes: [UInt8], _ body: (Event) throws -> Void) throws {
        guard let parser = XML_ParserCreate(nil), let size = Int32(exactly: bytes.count) else {
            throw Failure.malformed
        }
        defer { XML_ParserFree(parser) }
        try withoutActuallyEscaping(body) { body in
            let context = XMLContext(parser, body)
            XML_SetUserData(parser, Unmanaged.passUnretained(context).toOpaque())
            setHandlers(of: parser)
            // All at once: of a token that comes in pieces libexpat reads each piece again.
            let status = bytes.withUnsafeBytes { buffer in
                XML_Parse(parser, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), size, 1)
            }
            try withExtendedLifetime(context) {
                if let failure = context.failure { throw failure }
                if status != XML_STATUS_OK { throw Failure.malformed }
            }
        }
    }

    private static func setHandlers(of parser: XML_Parser) {
        XML_SetElementHandler(
            parser,
            { user, name, _ in XMLContext.of(user)?.begin(name) },
            { user, _ in XMLContext.of(user)?.end() })
        XML_SetCharacterDataHandler(parser) { user, text, count in XMLContext.of(user)?.add(text, count) }
        XML_SetStartDoctypeDeclHandler(parser) { user, _, _, _, _ in XMLContext.of(user)?.stop(.documentType) }
    }
}

/// What libexpat's calls find again of the one who reads. Used by one thread, for the time of one call of `XML_Parse`.
private final class XMLContext {
    private let parser: XML_Parser
    private let body: (XMLReader.Event) throws -> Void
    private var path = ""
    /// Of each open element: the length of the path before it, in bytes, and its text.
    private var open: [(length: Int, text: [UInt8])] = []
    private(set) var failure: (any Error)?

    init(_ parser: XML_Parser, _ body: @escaping (XMLReader.Event) throws -> Void) {
        self.parser = parser
        self.body = body
    }

    static func of(_ user: UnsafeMutableRawPointer?) -> XMLContext? {
        user.map { Unmanaged<XMLContext>.fromOpaque($0).takeUnretainedValue() }
    }

    func stop(_ reason: XMLReader.Failure) { fail(reason) }

    private func fail(_ error: any Error) {
        if failure == nil { failure = error }
        XML_StopParser(parser, XML_Bool(0))
    }

    func begin(_ name: UnsafePointer<CChar>?) {
        // After a failure libexpat may still make a call or two.
        guard failure == nil, let name else { return }
        let full = String(cString: name)
        guard open.count < XMLReader.maxDepth, full.utf8.count <= XMLReader.maxName else { return fail(.tooDeep) }
        open.append((path.utf8.count, []))
        if !path.isEmpty { path += "/" }
        path += full.split(separator: ":").last ?? ""
        perform(.begin(path: path))
    }

    func end() {
        guard failure == nil, let element = open.popLast() else { return }
        perform(.end(path: path, text: element.text))
        path = String(path.utf8.prefix(element.length)) ?? ""
    }

    func add(_ text: UnsafePointer<CChar>?, _ count: Int32) {
        guard failure == nil, let text, count > 0, !open.isEmpty else { return }
        let bytes = UnsafeRawBufferPointer(start: text, count: Int(count))
        open[open.count - 1].text.append(contentsOf: bytes)
    }

    private func fail(_ reason: XMLReader.Failure) { fail(reason as any Error) }

    private func perform(_ event: XMLReader.Event) {
        do { try body(event) } catch { fail(error) }
    }
}

/// The elements of a very small XML document, such as an error's, in the order in which they end.
struct XMLElements {
    struct Element {
        let path: String
        let text: [UInt8]
    }

    /// Elements that such a document has at most.
    private static let maxElements = 1000
    private struct TooMany: Error {}
    private var all: [Element] = []

    /// Nil when it is not well-formed, or beyond the bounds.
    init?(_ bytes: [UInt8]) {
        var all: [Element] = []
        do {
            try XMLReader.read(bytes) { event in
                guard case .end(let path, let text) = event else { return }
                guard all.count < Self.maxElements else { throw TooMany() }
                all.append(Element(path: path, text: text))
            }
        } catch { return nil }
        self.all = all
    }

    /// What the first element of this path has, or, with `isSuffix`, of a path that ends so; nil when there is none.
    func text(_ path: String, isSuffix: Bool = false) -> String? {
        let element = all.first { isSuffix ? $0.path.hasSuffix(path) : $0.path == path }
        return element.map { String(decoding: $0.text, as: UTF8.self) }
    }
}
