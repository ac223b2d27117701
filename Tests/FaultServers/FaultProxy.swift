import Foundation
import Glibc
import Synchronization

/// Stands between a client and a server of this machine, and spoils the server's answers to ranges as long as it is told
/// to. Requests are passed on with all their headers, so that signatures stay right. Ends with ``stop()``.
package final class FaultProxy: Sendable {
    /// Changes what the server has answered.
    package typealias Fault = @Sendable (inout FaultServer.Reply) -> Void

    private final class State: Sendable {
        let fault = Mutex<Fault?>(nil)
    }

    private let state: State
    private let server: FaultServer

    /// - Parameter port: of the server; while there is none, requests get no answer.
    package init(to port: Int) throws {
        let state = State()
        self.state = state
        server = try FaultServer { request in
            guard var reply = Self.pass(request, to: port) else {
                var reply = FaultServer.Reply()
                reply.raw = ""
                return reply
            }
            if request.method == "GET", request.range != nil { state.fault.withLock { $0 }?(&reply) }
            return reply
        }
    }

    package var url: String { server.url }
    /// All that came so far.
    package var requests: [FaultServer.Request] { server.requests }

    /// Spoils from now on; nil: no more.
    package func spoil(_ fault: Fault?) { state.fault.withLock { $0 = fault } }

    package func stop() { server.stop() }

    /// Nil when the server gives no whole answer.
    private static func pass(_ request: FaultServer.Request, to port: Int) -> FaultServer.Reply? {
        guard let connection = Loopback.connection(to: port) else { return nil }
        defer { close(connection) }
        // HTTP/1.0: the answer ends with the connection, and is in no chunks.
        let headers = request.headers.filter { $0.key != "connection" }.map { "\($0): \($1)\r\n" }.joined()
        let head = Array("\(request.method) \(request.target) HTTP/1.0\r\n\(headers)\r\n".utf8)
        guard head.withUnsafeBytes({ send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }) == head.count
        else { return nil }
        var answer = Data()
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(connection, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            answer += buffer[..<count]
        }
        return reply(answer, to: request)
    }

    private static func reply(_ answer: Data, to request: FaultServer.Request) -> FaultServer.Reply? {
        guard let end = answer.range(of: Data("\r\n\r\n".utf8)) else { return nil }
        let lines = String(decoding: answer[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
        guard let status = lines[0].split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else { return nil }
        var reply = FaultServer.Reply(status: status, body: Array(answer[end.upperBound...]))
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let name = String(line[..<colon])
            if name.lowercased() == "connection" { continue }
            reply.headers[name] = String(line[line.index(after: colon)...].drop { $0 == " " })
        }
        // One that broke off is to break off here too.
        if request.method != "HEAD", let length = reply.headers["Content-Length"].flatMap({ Int($0) }),
            length > reply.body.count
        {
            reply.cut = reply.body.count
        }
        return reply
    }
}
