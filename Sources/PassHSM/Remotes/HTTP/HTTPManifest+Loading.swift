import AsyncHTTPClient
import HSMCore
import HSMSystem
import NIOHTTP1

extension HTTPManifest {
    private static let maxSize = 1 << 30

    /// Reads the manifest at `place`, a path or an `http(s)://` URL. Blocks the calling thread.
    ///
    /// - Parameters:
    ///   - address: the source's address. Only the same server is sent the credentials.
    /// - Throws: `LocationError` when the manifest cannot be read or is wrong.
    package init(
        _ place: BytePath, of address: WebAddress, _ transport: HTTPTransport, _ credentials: HTTPCredentials
    ) throws(LocationError) {
        if let path = try RemoteLocation(place).address.directory {
            let text: [UInt8]
            do throws(Errno) { text = try SmallFile.read(path, limit: Self.maxSize) } catch {
                throw LocationError("the manifest \(place): \(error.text)")
            }
            try self.init(text)
            return
        }
        let url = place.description
        var request = HTTPClientRequest(url: url)
        request.headers.add(name: "Accept-Encoding", value: "identity")
        if url.hasPrefix(address.origin + "/"), let authorization = credentials.authorization {
            request.headers.add(name: "Authorization", value: authorization)
        }
        let asked = request
        let result = BlockingPool(name: "manifest", limit: 1).wait { () async -> Result<[UInt8], FillError> in
            do throws(FillError) {
                let response = try await transport.sendFollowing(asked)
                guard response.status == .ok else {
                    let key = RemoteKey(Array(url.utf8))
                    throw FillError(status: response.status, response.headers, key, isConditional: false)
                }
                return .success(try await response.whole(limit: Self.maxSize, name: url))
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let text): try self.init(text)
        case .failure(let error): throw LocationError("the manifest \(error.cause)")
        }
    }
}
