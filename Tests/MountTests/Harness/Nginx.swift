import Foundation
import Glibc
import TestSupport

/// nginx on loopback ports, serving one directory by HTTP, and by HTTPS and HTTP/2 with a certificate of its own
/// authority. Ends with ``stop()``, and with the value.
final class Nginx {
    let port: Int
    let securePort: Int
    /// PEM file of the authority.
    let authority: String
    private let folder: String
    private var server: Child?

    /// - Parameters:
    ///   - folder: for its own files; made.
    ///   - settings: more lines of each server's configuration.
    init(serving root: String, in folder: String, settings: String = "") throws {
        self.folder = folder
        let identity = try Certificate(in: folder)
        authority = identity.authority
        port = try Self.freePort()
        securePort = try Self.freePort()
        let locations = """
            root \(root); autoindex on; \(settings)
            location /json/ { alias \(root)/; autoindex_format json; }
            """
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map { "\($0)_temp_path \(folder)/\($0);" }
        try File.put(
            """
            daemon off; master_process off; user root; pid \(folder)/pid; error_log \(folder)/errors;
            events { worker_connections 1024; }
            http {
                \(temporary.joined(separator: " "))
                log_format short '$server_protocol $connection $status $request_method $http_range $request_uri';
                access_log \(folder)/access short;
                server { listen 127.0.0.1:\(port); \(locations) }
                server {
                    listen 127.0.0.1:\(securePort) ssl http2; \(locations)
                    ssl_certificate \(identity.certificate); ssl_certificate_key \(identity.key);
                }
            }
            """, folder + "/nginx.conf")
        try start()
    }

    var url: String { "http://127.0.0.1:\(port)/" }
    var secureURL: String { "https://127.0.0.1:\(securePort)/" }

    func start() throws {
        let server = try Child(["nginx", "-p", folder, "-e", folder + "/errors", "-c", folder + "/nginx.conf"])
        self.server = server
        try until("nginx") {
            if let output = server.poll() { throw Failure("\(output)") }
            return Self.answers(port) && Self.answers(securePort)
        }
    }

    /// As a crash is to those who read from it.
    func stop() {
        server?.kill(SIGKILL)
        _ = try? server?.wait(seconds: 5)
        server = nil
    }

    /// Lines of protocol, number of the connection, status, method, range (`-` for none) and path.
    var log: [[String]] {
        let text = (try? String(contentsOfFile: folder + "/access", encoding: .utf8)) ?? ""
        return text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
    }

    /// A port that nothing listens on now.
    static func freePort() throws -> Int {
        let (descriptor, port) = try bound(to: 0)
        close(descriptor)
        return port
    }

    static func answers(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        return withAddress(port) { connect(descriptor, $0, $1) } == 0
    }

    private static func bound(to port: Int) throws -> (Int32, Int) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard withAddress(port, { bind(descriptor, $0, $1) }) == 0 else { throw Failure("no free port") }
        var (address, size) = (sockaddr_in(), socklen_t(MemoryLayout<sockaddr_in>.size))
        _ = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &size) }
        }
        return (descriptor, Int(UInt16(bigEndian: address.sin_port)))
    }

    private static func withAddress(_ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}
