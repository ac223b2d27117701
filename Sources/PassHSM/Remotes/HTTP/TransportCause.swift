import AsyncHTTPClient
import HSMSystem
import NIOCore
import NIOPosix
import NIOSSL

/// The cause of an HTTP client's error, as a text for people. The libraries' own texts name source files and error
/// queues.
enum TransportCause {
    static func text(_ error: any Error) -> String {
        switch error {
        case let error as IOError: Errno(rawValue: error.errnoCode).text
        case let error as NIOConnectionError: connection(error)
        case let error as NIOSSLError: tls(error)
        case is NIOSSLExtraError: "the server's certificate is for another host"
        case let error as HTTPClientError: client(error)
        default: "\(error)"
        }
    }

    private static func client(_ error: HTTPClientError) -> String {
        switch error {
        case .connectTimeout: "the connection timed out"
        case .remoteConnectionClosed: "the server closed the connection"
        default: error.shortDescription
        }
    }

    private static func connection(_ error: NIOConnectionError) -> String {
        if let attempt = error.connectionErrors.first { return text(attempt.error) }
        return "the address of \(error.host) cannot be found"
    }

    /// BoringSSL's error text (ERR_error_string_n) ends with the name of the reason.
    private static func tls(_ error: NIOSSLError) -> String {
        let description = "\(error)"
        let known = [
            ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not trusted; --ca-file adds an authority"),
            ("WRONG_VERSION_NUMBER", "the server does not use TLS at this port"),
            ("PROTOCOL_VERSION", "the server does not support TLS 1.2 or newer"),
            ("UNSUPPORTED_PROTOCOL", "the server does not support TLS 1.2 or newer"),
        ]
        for (reason, text) in known where description.contains(reason) { return text }
        if case .uncleanShutdown = error { return "the server closed the connection" }
        if case .handshakeFailed = error { return "the TLS handshake failed" }
        return "TLS: \(description)"
    }
}
