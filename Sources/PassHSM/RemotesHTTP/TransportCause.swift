import AsyncHTTPClient
import HSMSystem
import NIOCore
import NIOPosix
import NIOSSL

/// What the HTTP client throws, as a text for people: the libraries' own texts name their source files and error queues.
enum TransportCause {
    static func text(_ error: any Error) -> String {
        switch error {
        case let error as IOError: Errno(rawValue: error.errnoCode).text
        case let error as NIOConnectionError: connection(error)
        case let error as NIOSSLError: tls(error)
        case is NIOSSLExtraError: "its certificate is another host's"
        case let error as HTTPClientError: client(error)
        default: "\(error)"
        }
    }

    private static func client(_ error: HTTPClientError) -> String {
        switch error {
        case .connectTimeout: "no connection came about in time"
        case .remoteConnectionClosed: "the server closed the connection"
        default: error.shortDescription
        }
    }

    private static func connection(_ error: NIOConnectionError) -> String {
        if let attempt = error.connectionErrors.first { return text(attempt.error) }
        return "the address of \(error.host) cannot be found"
    }

    /// The reason's name is the last part of an error in BoringSSL's own form (ERR_error_string_n).
    private static func tls(_ error: NIOSSLError) -> String {
        let description = "\(error)"
        let known = [
            ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted; --ca-file names a further authority"),
            ("WRONG_VERSION_NUMBER", "it does not speak TLS at this port"),
            ("PROTOCOL_VERSION", "it speaks no TLS 1.2 or newer"),
            ("UNSUPPORTED_PROTOCOL", "it speaks no TLS 1.2 or newer"),
        ]
        for (reason, text) in known where description.contains(reason) { return text }
        if case .uncleanShutdown = error { return "the server closed the connection" }
        if case .handshakeFailed = error { return "the TLS handshake failed" }
        return "TLS: \(description)"
    }
}
