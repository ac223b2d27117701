import CExpat

/// Reads a small XML document with libexpat, element by element. It needs memory only for the open elements.
///
/// It supports less than the XML standard. A document type is refused, so there are no entities but XML's own five and
/// numeric characters. Attributes and name space prefixes are ignored.
struct XMLReader {
    enum Event {
        /// An element begins. The path has the names from the top down, joined by `/`.
        case begin(path: String)
        /// The element ends. `text` is the text directly inside it, in UTF-8.
        case end(path: String, text: [UInt8])
    }

    /// Why a document was not read to its end.
    enum Failure: Error, Equatable {
        /// The document is not well-formed, or breaks off.
        case malformed
        case documentType
        /// Elements are nested more than ``XMLReader/maxDepth`` deep, or a name has more than ``XMLReader/maxName``
        /// bytes.
        case tooDeep
    }

    /// The deepest nesting. S3's answers have five levels.
    static let maxDepth = 32
    /// The longest name in bytes.
    static let maxName = 256

    /// Passes each event to `body`, in the document's order.
    ///
    /// - Throws: ``Failure``; errors of `body`, which end the reading.
    static func read(_ bytes: [UInt8], _ body: (Event) throws -> Void) throws {
        guard let parser = XML_ParserCreate(nil), let size = Int32(exactly: bytes.count) else {
            throw Failure.malformed
        }
        defer { XML_ParserFree(parser) }
        try withoutActuallyEscaping(body) { body in
            let context = XMLContext(parser, body)
            XML_SetUserData(parser, Unmanaged.passUnretained(context).toOpaque())
            setHandlers(of: parser)
            // The document is passed whole, because libexpat reads a token that comes in pieces again with each piece.
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

/// The context that libexpat's callbacks get. Used by one thread, during one call of `XML_Parse`.
private final class XMLContext {
    private let parser: XML_Parser
    private let body: (XMLReader.Event) throws -> Void
    private var path = ""
    /// For each open element, the length in bytes of the path before it, and its text.
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
        // libexpat may still make a call or two after a failure.
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

    /// The largest number of elements in such a document.
    private static let maxElements = 1000
    private struct TooMany: Error {}
    private var all: [Element] = []

    /// Nil when the document is not well-formed, or exceeds a limit.
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

    /// The text of the first element with this path, or, with `isSuffix`, with a path that ends in it. Nil when there
    /// is none.
    func text(_ path: String, isSuffix: Bool = false) -> String? {
        let element = all.first { isSuffix ? $0.path.hasSuffix(path) : $0.path == path }
        return element.map { String(decoding: $0.text, as: UTF8.self) }
    }
}
