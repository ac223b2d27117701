import HSMCore
import HSMSystem

/// The location of a remote tier as the command line and the configuration give it: a plain path or a URL.
package struct RemoteLocation: Hashable, Sendable, CustomStringConvertible {
    package private(set) var address: any RemoteAddress

    /// Parses a location: a directory's plain path, or a URL of one of the ``RemoteKinds``. A text that begins with the
    /// letters of a scheme and `://` is taken for a URL.
    ///
    /// - Throws: for an empty text, an unknown scheme, and a malformed URL. Nothing is looked up.
    package init(_ argument: BytePath) throws(LocationError) {
        guard let scheme = Self.scheme(of: argument.bytes) else {
            address = try DirectoryAddress(path: argument)
            return
        }
        guard let kind = RemoteKinds.all.first(where: { $0.schemes.contains(scheme.lowercased()) }) else {
            throw LocationError("\(argument): \(scheme):// is not supported; a source is \(RemoteKinds.forms)")
        }
        address = try kind.init(argument)
    }

    /// The same for text, such as a URL from the configuration.
    package init(_ argument: String) throws(LocationError) { try self.init(BytePath(argument)) }

    /// Sets options of an import, by their names, that are part of the address.
    ///
    /// - Throws: when they are for other kinds, or a value is wrong.
    package mutating func set(_ options: [(name: String, value: String)]) throws(LocationError) {
        for option in options {
            try expect(option.name)
            try address.set(option.name, to: option.value)
        }
    }

    /// Completes the location from the environment and from `recorded`, the location of an earlier import.
    package func completed(after recorded: String?) throws(LocationError) -> RemoteLocation {
        let recorded = recorded.flatMap { try? RemoteLocation($0) }
        var result = self
        result.address = try address.completed(after: recorded?.address, environment: RemoteAccess().environment)
        return result
    }

    /// Opens the remote tier.
    ///
    /// - Throws: when it cannot be opened, or an option is for other kinds.
    package func open(_ access: RemoteAccess = .init()) throws(LocationError) -> any RemoteStore {
        if access.manifest != nil { try expect("manifest") }
        return try address.open(access)
    }

    package var url: String { address.url }
    package var description: String { url }

    package static func == (one: RemoteLocation, other: RemoteLocation) -> Bool { one.url == other.url }
    package func hash(into hasher: inout Hasher) { hasher.combine(url) }

    private func expect(_ option: String) throws(LocationError) {
        if !type(of: address).options.contains(option) { throw RemoteKinds.refusal(of: option) }
    }

    /// The text before `://`, if it can be a URL's scheme.
    private static func scheme(of bytes: [UInt8]) -> String? {
        guard let colon = bytes.firstIndex(of: 0x3a), colon > 0, bytes[colon...].starts(with: "://".utf8) else {
            return nil
        }
        let scheme = String(decoding: bytes[..<colon], as: UTF8.self)
        let isScheme = scheme.utf8.allSatisfy { $0.isAlphanumeric(or: "+-.") }
        return isScheme ? scheme : nil
    }
}
