import Glibc
import HSMCore
import HSMSystem

/// `.passhsm/config`: lines of `name=value`. Values have no line breaks; unknown names are dropped.
package struct StoreConfiguration: Equatable, Sendable {
    /// The remote tier, as a URL.
    package var source = ""
    /// ``source`` alone suffices to reach the remote tier; false: the environment may add to it.
    package var isSourceComplete = false
    /// The file system of a directory as the source, in the words of the remote tier; empty: not recorded.
    package var sourceFileSystem = ""
    /// The path of a PEM file: certificate authorities that may vouch for the remote tier's servers. Empty: only the
    /// system's may.
    package var authorities = ""
    /// Mount options for mounts whose command line does not give them: values by the options' names, `mount.name=value`
    /// in the file.
    package var mountSettings: [String: String] = [:]
    /// Import options for imports whose command line does not give them: `import.name=value` in the file.
    package var importSettings: [String: String] = [:]
    /// Nothing in the tree has set-user-ID or set-group-ID from a web server or a bucket: a file that has it got it
    /// locally.
    package var withholdsRights = false
    /// Bytes of the granules of files that are imported from now on; a power of two.
    package var granuleSize = GranuleLayout.defaultGranuleSize
    /// The last import ran to its end: none is under way, and none broke off.
    package var isImported = false
    /// The place of the files. In a new store they are inside.
    package internal(set) var layout = Store.Layout.inside
    /// The extended attribute of the records; chosen when the store is made.
    package internal(set) var attribute = ""

    /// A message that users of the tree need; nil: there is none.
    package var warning: String? {
        isImported
            ? nil : "the last import into this directory was interrupted, and names may be missing; import again"
    }

    /// The format of stores whose files are at the top, which earlier versions read too.
    private static let formatAtTop = "1"
    private static let format = "2"
    private static let file = "config"
    private static let mountPrefix = "mount."
    private static let importPrefix = "import."
    /// The largest file, in bytes.
    private static let maxBytes = 64 << 10

    static func read(from directory: Descriptor) throws(StoreError) -> StoreConfiguration {
        guard let bytes = try content(in: directory) else { return .init() }
        return try StoreConfiguration(bytes)
    }

    package init() {}

    /// Decodes the file's content.
    init(_ bytes: [UInt8]) throws(StoreError) {
        // This splits bytes: in Swift's strings a carriage return with its newline is one character.
        for line in bytes.split(separator: UInt8(ascii: "\n")).map({ String(decoding: $0, as: UTF8.self) }) {
            let parts = line.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { continue }
            switch parts[0] {
            case "format":
                guard [Self.format, Self.formatAtTop].contains(parts[1]) else {
                    throw StoreError("the store has the unknown format \(parts[1])")
                }
                if parts[1] == Self.formatAtTop { layout = .top }
            case "tree":
                guard let value = Store.Layout(rawValue: parts[1]) else {
                    throw StoreError("the store has its files in an unknown place: \(parts[1])")
                }
                layout = value
            case "source": source = parts[1]
            case "location": isSourceComplete = parts[1] == "complete"
            case "source-filesystem": sourceFileSystem = parts[1]
            case "authorities": authorities = parts[1]
            case "granule":
                guard let size = Int(parts[1]), GranuleLayout.granuleSizes.contains(size) else {
                    throw StoreError("the store has the impossible granule size \(parts[1])")
                }
                granuleSize = size
            case "rights": withholdsRights = parts[1] == "withheld"
            case "imported": isImported = parts[1] == "yes"
            case "attribute":
                guard Store.attributes.contains(parts[1]) else {
                    throw StoreError("the store names the unknown attribute \(parts[1])")
                }
                attribute = parts[1]
            default:
                if parts[0].hasPrefix(Self.mountPrefix) {
                    mountSettings[String(parts[0].dropFirst(Self.mountPrefix.count))] = parts[1]
                } else if parts[0].hasPrefix(Self.importPrefix) {
                    importSettings[String(parts[0].dropFirst(Self.importPrefix.count))] = parts[1]
                }
            }
        }
    }

    /// Nil when there is no file. Every other failure is an error: there may be a configuration that says where the
    /// records are.
    private static func content(in directory: Descriptor) throws(StoreError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: maxBytes + 1)
        var count = 0
        do throws(Errno) {
            let file = try Descriptor.openOwn(at: directory, Self.file, O_RDONLY)
            count = try bytes.withMutableBytes { buffer throws(Errno) in try file.read(into: buffer, at: 0) }
        } catch {
            if error.rawValue == ENOENT { return nil }
            throw StoreError("the store's configuration cannot be read: \(error.text)")
        }
        guard count <= maxBytes else { throw StoreError("the store's configuration is longer than \(maxBytes) bytes") }
        return Array(bytes[..<count])
    }

    /// Encodes the file's content.
    var bytes: [UInt8] {
        let settings = [(Self.mountPrefix, mountSettings), (Self.importPrefix, importSettings)].flatMap { prefix, all in
            all.sorted { $0.key < $1.key }.map { "\(prefix)\($0.key)=\($0.value)\n" }
        }
        let text = """
            format=\(layout == .top ? Self.formatAtTop : Self.format)
            tree=\(layout.rawValue)
            attribute=\(attribute)
            source=\(source)
            location=\(isSourceComplete ? "complete" : "open")
            source-filesystem=\(sourceFileSystem)
            authorities=\(authorities)
            granule=\(granuleSize)
            imported=\(isImported ? "yes" : "no")
            rights=\(withholdsRights ? "withheld" : "taken")
            \(settings.joined())
            """
        return Array(text.utf8)
    }

    func write(to directory: Descriptor) throws(StoreError) {
        let all = mountSettings.merging(importSettings) { $0 + $1 }
        for value in [source, sourceFileSystem, authorities] + Array(all.values) + Array(all.keys)
        where value.utf8.contains(UInt8(ascii: "\n")) {
            throw StoreError("the configuration cannot hold a line break: \(ArgumentText.readable(value))")
        }
        do throws(Errno) {
            let new = "config.new"
            let file = try Descriptor.openOwn(at: directory, new, O_WRONLY | O_CREAT | O_TRUNC)
            try bytes.withBytes { bytes throws(Errno) in try file.write(bytes, at: 0) }
            try file.fsync()
            _ = try check { renameat(directory.raw, new, directory.raw, Self.file) }
            try directory.fsync()
        } catch {
            throw StoreError("the configuration cannot be written: \(error.text)")
        }
    }
}
