import FoundationEssentials
import HSMCore
import HSMSystem

/// The address of a remote tier, of one kind. A kind is a type of this protocol in a folder of its own, and a line in
/// ``RemoteKinds/all``; nothing else knows the kinds.
package protocol RemoteAddress: Sendable {
    /// The schemes of its URLs, in lower case.
    static var schemes: [String] { get }

    /// The import's options for this kind alone, by their names. None by default.
    static var options: [String] { get }

    /// Parses a URL with one of the schemes. Looks nothing up.
    init(_ url: BytePath) throws(LocationError)

    /// The address as the configuration stores it: percent-encoded, without secrets. Equal addresses have equal URLs.
    var url: String { get }

    /// The absolute path, if the remote is a directory of this machine; nil by default.
    var directory: BytePath? { get }

    /// Whether owners, modes and devices are those of other machines, so that an import does not simply copy them; true
    /// by default.
    var isForeign: Bool { get }

    /// The file system that the remote is on now; nil, as by default, for a kind that is on none of this machine.
    ///
    /// - Throws: when the remote cannot be reached.
    func fileSystem() throws(LocationError) -> SourceIdentity?

    /// Whether both are the same place. By default, when their URLs are equal.
    ///
    /// - Parameter isComplete: false when the environment may add to `recorded`.
    func isSamePlace(as recorded: any RemoteAddress, isComplete: Bool) -> Bool

    /// Sets one of the ``options`` that are part of the address. By default there is none.
    mutating func set(_ option: String, to value: String) throws(LocationError)

    /// The address with what `environment` and the address of an earlier import add to it. By default, the same one.
    func completed(
        after recorded: (any RemoteAddress)?, environment: [String: String]
    ) throws(LocationError) -> Self

    /// Opens the remote tier.
    func open(_ access: RemoteAccess) throws(LocationError) -> any RemoteStore
}

extension RemoteAddress {
    package static var options: [String] { [] }
    package var directory: BytePath? { nil }
    package var isForeign: Bool { true }
    package func fileSystem() throws(LocationError) -> SourceIdentity? { nil }

    package func isSamePlace(as recorded: any RemoteAddress, isComplete: Bool) -> Bool { url == recorded.url }

    package mutating func set(_ option: String, to value: String) throws(LocationError) {
        throw LocationError("--\(option) is not part of \(url)")
    }

    package func completed(
        after recorded: (any RemoteAddress)?, environment: [String: String]
    ) throws(LocationError) -> Self { self }
}

/// What it takes to open a remote tier besides its address. A kind ignores what it has no use for.
package struct RemoteAccess: Sendable {
    /// The path of a PEM file; empty: the system's certificate authorities alone.
    package var authorities = ""
    /// A file, or a URL, that lists the objects.
    package var manifest: BytePath?
    /// A listing asks for the metadata of each object.
    package var readsMetadata = true
    /// The environment adds nothing to the address but credentials.
    package var isComplete = true
    /// The remote need not be there now.
    package var mayBeAway = false
    /// The file system that a remote which may be away has to be on, as ``SourceIdentity/text``; empty: any.
    package var fileSystem = ""
    /// Gives credentials, proxies, and what is missing in the address.
    package var environment = ProcessInfo.processInfo.environment

    package init() {}
}
