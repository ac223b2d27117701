import HSMCore

extension WebAddress: RemoteAddress {
    package static let schemes = ["http", "https"]
    package static let options = ["manifest"]

    package func open(_ access: RemoteAccess) throws(LocationError) -> any RemoteStore {
        let transport = try HTTPTransport(access)
        let credentials = try HTTPCredentials(host: host, environment: access.environment)
        let manifest = try access.manifest.map { place throws(LocationError) in
            try HTTPManifest(place, of: self, transport, credentials)
        }
        return HTTPSource(self, transport: transport, credentials: credentials, manifest: manifest)
    }
}
