import Glibc
import HSMCore
import HSMRemotes
import HSMStore
import HSMSystem

/// Opens the remote tier at a location. The only type that knows every kind of remote.
package struct RemoteTier {
    private let location: RemoteLocation
    private let authorities: String?
    private let manifest: BytePath?
    private let readsMetadata: Bool
    private let isComplete: Bool
    /// The file system that a directory which may be away has to be on.
    private let identity: SourceIdentity?
    private let mayBeAway: Bool

    /// - Parameters:
    ///   - authorities: path of a PEM file; nil or empty: the system's certificate authorities alone.
    ///   - manifest: a file, or a URL, that lists the objects.
    ///   - readsMetadata: a listing asks the bucket for the metadata of each object.
    ///   - isComplete: the environment adds nothing to the location but credentials.
    ///   - mayBeAway: a directory need not be there now.
    ///   - identity: the file system that such a directory has to be on; nil: any.
    package init(
        _ location: RemoteLocation, authorities: String?, manifest: BytePath? = nil, readsMetadata: Bool = true,
        isComplete: Bool = true, mayBeAway: Bool = false, identity: SourceIdentity? = nil
    ) {
        self.isComplete = isComplete
        self.mayBeAway = mayBeAway
        self.identity = identity
        self.location = location
        self.authorities = authorities.flatMap { $0.isEmpty ? nil : $0 }
        self.manifest = manifest
        self.readsMetadata = readsMetadata
    }

    /// The remote tier that a lower directory was imported from.
    package init(_ configuration: StoreConfiguration) throws(LocationError) {
        let recorded = configuration.sourceFileSystem
        self.init(
            try RemoteLocation(configuration.source), authorities: configuration.authorities,
            isComplete: configuration.isSourceComplete, mayBeAway: true,
            identity: recorded.isEmpty ? nil : try SourceIdentity(text: recorded))
    }

    /// Completes the location from the environment and from the configuration of an earlier import, `recorded`.
    package static func complete(
        _ location: RemoteLocation, after recorded: StoreConfiguration?
    ) throws(LocationError) -> RemoteLocation {
        guard let bucket = location.bucket else { return location }
        let old = recorded.flatMap { try? RemoteLocation($0.source) }?.bucket
        return RemoteLocation(try bucket.completed(after: old, environment: environment))
    }

    /// - Throws: `LocationError` when it cannot be opened.
    package func open() throws -> any RemoteStore {
        if manifest != nil && location.web == nil {
            throw LocationError("--manifest is for http:// and https:// sources")
        }
        if location.path != nil {
            return mayBeAway ? try location.directory(on: identity) : try location.openDirectory()
        }
        var options = HTTPTransport.Options()
        options.authorities = authorities
        let transport = try HTTPTransport(options: options, environment: Self.environment)
        if let bucket = location.bucket {
            let credentials = try CredentialChain(profile: bucket.profile, environment: Self.environment)
            return try S3Source(
                bucket, transport: transport, credentials: credentials, readsMetadata: readsMetadata,
                isComplete: isComplete)
        }
        guard let address = location.web else { throw LocationError("\(location) is no source") }
        let credentials = try HTTPCredentials(host: address.host, environment: Self.environment)
        let list = try manifest.map { try HTTPManifest($0, of: address, transport, credentials) }
        return HTTPSource(address, transport: transport, credentials: credentials, manifest: list)
    }

    /// The environment's variables that are text.
    private static var environment: [String: String] {
        var result: [String: String] = [:]
        for variable in ChildProcess.environment {
            let parts = variable.description.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
        }
        return result
    }
}
