import CFuse
import Glibc
import HSMSystem
import Logging
import Synchronization
import TestSupport
import Testing

@testable import HSMFuseDoor

/// The transport over a socket in the place of /dev/fuse: each message is a request or a reply.
@Suite struct TransportTests {
    /// Answers GETATTR at once, and LOOKUP when it is let go: it blocks the thread until then.
    private final class Handler: RequestHandler {
        let letsGo = Flag()
        let blocked = Atomic<Int>(0)
        let threads = Atomic<Int>(0)
        let forgotten = Atomic<Int>(0)
        let isConnected = Flag()

        func prepareThread() { threads.add(1, ordering: .relaxed) }
        func connected(_ transport: any Transport) { isConnected.set() }
        func forget(_ node: UInt64, _ count: UInt64) { forgotten.add(Int(count), ordering: .relaxed) }
        func handle(_ request: Request, _ reply: consuming Reply) {
            if case .lookup = request.operation {
                blocked.add(1, ordering: .relaxed)
                while !letsGo.isSet { usleep(1000) }
            }
            reply.written(Int(request.node))
        }
    }

    /// The other end of the socket.
    private final class Kernel {
        private var socket: Descriptor?
        private var replies: [UInt64: (code: Int32, payload: [UInt8])] = [:]

        init(_ socket: Descriptor) { self.socket = socket }

        func close() { socket = nil }

        func send(_ opcode: fuse_opcode, _ unique: UInt64, node: UInt64 = 1, _ body: [UInt8] = []) {
            var header = fuse_in_header()
            (header.opcode, header.unique, header.nodeid) = (opcode.rawValue, unique, node)
            header.len = UInt32(MemoryLayout<fuse_in_header>.size + body.count)
            let message = bytes(of: header) + body
            #expect(Glibc.send(socket?.raw ?? -1, message, message.count, 0) == message.count)
        }

        func reply(_ unique: UInt64) -> (code: Int32, payload: [UInt8])? {
            var buffer = [UInt8](repeating: 0, count: 4096)
            while let socket {
                let count = recv(socket.raw, &buffer, buffer.count, Int32(MSG_DONTWAIT))
                if count <= 0 { break }
                let header = buffer.withUnsafeBytes { $0.loadUnaligned(as: fuse_out_header.self) }
                #expect(Int(header.len) == count)
                replies[header.unique] = (header.error, Array(buffer[MemoryLayout<fuse_out_header>.size..<count]))
            }
            return replies[unique]
        }

        func wait(for unique: UInt64) throws -> (code: Int32, payload: [UInt8]) {
            try until("the reply to \(unique)") { reply(unique) != nil }
            return replies[unique] ?? (0, [])
        }
    }

    private static let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private func withTransport(_ body: (ClassicTransport, Handler, Kernel) throws -> Void) throws {
        var ends: [Int32] = [0, 0]
        _ = try check { socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) }
        let (device, kernel) = (Descriptor(owning: ends[0]), Kernel(Descriptor(owning: ends[1])))
        let (transport, handler) = (ClassicTransport(log: Self.log), Handler())
        let connection = Connection(transport, Negotiation.Wishes(), handler)
        try transport.start(connection, device: device.raw)
        defer {
            handler.letsGo.set()
            kernel.close()
            transport.wait()
        }
        try body(transport, handler, kernel)
    }

    @Test("A request is read whole, and its reply has its number")
    func replies() throws {
        try withTransport { transport, handler, kernel throws in
            kernel.send(FUSE_GETATTR, 2, node: 70)
            kernel.send(fuse_opcode(4000), 4)
            let answer = try kernel.wait(for: 2)
            #expect(answer.code == 0 && answer.payload == bytes(of: UInt64(70)))
            #expect(try kernel.wait(for: 4).code == -ENOSYS)
            kernel.send(FUSE_FORGET, 6, bytes(of: fuse_forget_in(nlookup: 5)))
            try until("the forget") { handler.forgotten.load(ordering: .relaxed) == 5 }
        }
    }

    @Test("INIT connects")
    func connects() throws {
        try withTransport { transport, handler, kernel throws in
            #expect(!handler.isConnected.isSet)
            kernel.send(FUSE_INIT, 2, bytes(of: FuseFixture.offer))
            #expect(transport.waitUntilConnected())
            #expect(try handler.isConnected.isSet && kernel.wait(for: 2).payload.count == 64)
        }
    }

    @Test("A connection that ends before INIT was never there")
    func neverConnected() throws {
        try withTransport { transport, handler, kernel throws in
            kernel.close()
            #expect(!transport.waitUntilConnected())
            #expect(transport.wait(seconds: 10))
        }
    }

    @Test("Threads that block are replaced, and too many idle ones end")
    func threads() throws {
        try withTransport { transport, handler, kernel throws in
            for number in 0..<40 as Range<UInt64> { kernel.send(FUSE_LOOKUP, 2 + 2 * number, node: 3, text("x")) }
            try until("all of them") { handler.blocked.load(ordering: .relaxed) == 40 }
            kernel.send(FUSE_GETATTR, 100)
            #expect(try kernel.wait(for: 100).code == 0)
            #expect(handler.threads.load(ordering: .relaxed) >= 41)
            #expect(!transport.wait(seconds: 0.05))
            handler.letsGo.set()
            for number in 0..<40 as Range<UInt64> { #expect(try kernel.wait(for: 2 + 2 * number).code == 0) }
            kernel.send(FUSE_GETATTR, 102)
            #expect(try kernel.wait(for: 102).code == 0)
        }
    }

    @Test("An abort lets the waiting one go although threads serve")
    func aborts() throws {
        try withTransport { transport, handler, kernel throws in
            transport.abort()
            transport.wait()
            kernel.send(FUSE_GETATTR, 2)
            #expect(try kernel.wait(for: 2).code == 0)
        }
    }

    @Test("A device that knows no passthrough has its own error")
    func backing() throws {
        try withTransport { transport, handler, kernel throws in
            #expect(throws: Errno(rawValue: ENOTTY)) { try transport.openBacking(0) }
            transport.closeBacking(1)
        }
    }

    @Test("What cannot be mounted says why, and leaves no thread")
    func refused() throws {
        let transport = ClassicTransport(log: Self.log)
        let connection = Connection(transport, Negotiation.Wishes(), Handler())
        #expect(throws: Errno(rawValue: ENOENT)) {
            try transport.start(
                connection, mountpoint: "/nowhere/at/all".utf8CString.map { $0 }, options: "fsname=x,subtype=passhsm")
        }
        #expect(transport.wait(seconds: 0))
        transport.detach("/nowhere/at/all".utf8CString.map { $0 })
    }
}
