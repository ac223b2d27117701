import CFuse
import Glibc
import HSMSystem
import Synchronization

/// Answers requests: the file system, as its connection sees it. The transport's threads call it, any number at once.
package protocol RequestHandler: Sendable {
    /// Called once by each thread before its first request.
    func prepareThread()
    /// Called before the first other request: the kernel has the reply to INIT.
    func connected(_ transport: any Transport)
    /// The kernel gives back `count` references to an inode. The id may be unknown.
    func forget(_ node: UInt64, _ count: UInt64)
    /// Answers the request, now or later. Must not wait for the remote.
    func handle(_ request: Request, _ reply: consuming Reply)
}

/// One connection to the kernel: turns the bytes that a transport brings into requests for a handler, and counts them.
/// It answers INIT and INTERRUPT by itself. Safe on every thread.
package final class Connection: Sendable {
    package let transport: any Transport
    package let counters = RequestCounters()
    let interrupts = Interrupts()
    private let handler: any RequestHandler
    private let wishes: Negotiation.Wishes
    /// Whether SETXATTR has its longer form, as the reply to INIT agreed.
    private let hasExtendedSetxattr = Atomic<Bool>(false)

    package init(_ transport: any Transport, _ wishes: Negotiation.Wishes, _ handler: any RequestHandler) {
        self.transport = transport
        self.wishes = wishes
        self.handler = handler
    }

    /// Called by each of the transport's threads before its first request.
    package func prepareThread() { handler.prepareThread() }

    /// Handles one request. The bytes are no longer needed when it returns.
    package func receive(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= MemoryLayout<fuse_in_header>.size else { return }
        let header = bytes.loadUnaligned(as: fuse_in_header.self)
        counters.count(header.opcode)
        let body = UnsafeRawBufferPointer(rebasing: bytes[MemoryLayout<fuse_in_header>.size...])
        do throws(Errno) {
            switch fuse_opcode(header.opcode) {
            case FUSE_INIT: try negotiate(header, body)
            case FUSE_DESTROY: fail(header, 0)
            case FUSE_INTERRUPT: interrupts.interrupt(try Self.read(fuse_interrupt_in.self, body).unique)
            case FUSE_FORGET: handler.forget(header.nodeid, try Self.read(fuse_forget_in.self, body).nlookup)
            case FUSE_BATCH_FORGET: try forgetAll(body)
            default:
                let operation = try Operation(
                    header.opcode, body, hasExtendedSetxattr: hasExtendedSetxattr.load(ordering: .relaxed))
                let caller = Caller(user: header.uid, group: header.gid, thread: pid_t(bitPattern: header.pid))
                handler.handle(
                    Request(node: header.nodeid, operation: operation), Reply(self, header.unique, caller))
            }
        } catch {
            if ![FUSE_INTERRUPT, FUSE_FORGET, FUSE_BATCH_FORGET].contains(fuse_opcode(header.opcode)) {
                fail(header, error.rawValue)
            }
        }
    }

    private static func read<Value: BitwiseCopyable>(
        _ type: Value.Type, _ body: UnsafeRawBufferPointer
    ) throws(Errno) -> Value {
        var reader = RequestReader(body)
        return try reader.next(type)
    }

    private func forgetAll(_ body: UnsafeRawBufferPointer) throws(Errno) {
        var reader = RequestReader(body)
        let count = try reader.next(fuse_batch_forget_in.self).count
        for _ in 0..<count {
            let one = try reader.next(fuse_forget_one.self)
            handler.forget(one.nodeid, one.nlookup)
        }
    }

    /// INIT. Kernels before 5.17 send a shorter form without `flags2`.
    private func negotiate(_ header: fuse_in_header, _ body: UnsafeRawBufferPointer) throws(Errno) {
        var offer = fuse_init_in()
        withUnsafeMutableBytes(of: &offer) { $0.copyMemory(from: .init(rebasing: body.prefix($0.count))) }
        guard offer.major == FUSE_KERNEL_VERSION else { throw Errno(rawValue: EPROTO) }
        let answer = Negotiation.reply(to: offer, wishes)
        hasExtendedSetxattr.store(answer.flags & UInt32(FUSE_SETXATTR_EXT) != 0, ordering: .relaxed)
        if withUnsafeBytes(of: answer, { send(header.unique, 0, $0) }) {
            handler.connected(transport)
            transport.didConnect()
        }
    }

    private func fail(_ header: fuse_in_header, _ code: Int32) {
        _ = send(header.unique, -code, UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// Sends a reply or a notification, see ``Transport/send(_:_:_:)``.
    func send(_ unique: UInt64, _ code: Int32, _ payload: UnsafeRawBufferPointer) -> Bool {
        // The kernel refuses the reply with any other errno (fs/fuse/dev.c), and the caller would wait for good. A lower
        // file system may give one, such as ENOTSUPP, 524.
        let isTaken = unique == 0 || (-511...0).contains(code)
        return transport.send(unique, isTaken ? code : -EIO, payload)
    }

    /// Makes the kernel forget an inode's attributes, and `pages` of it.
    ///
    /// Waits for those pages that are being read. A thread that answers requests therefore must not call it, nor a
    /// thread that holds a lock that answering takes. With no pages it does not wait.
    package func invalidate(_ node: UInt64, _ pages: PageSelection) {
        let (offset, count) =
            switch pages {
            case .none: (-1, 0)
            case .all: (0, 0)
            case .range(let range): (range.lowerBound, range.count)
            }
        let notification = fuse_notify_inval_inode_out(ino: node, off: Int64(offset), len: Int64(count))
        // The kernel refuses it (ENOENT) when it does not know the inode.
        _ = withUnsafeBytes(of: notification) { send(0, Int32(FUSE_NOTIFY_INVAL_INODE.rawValue), $0) }
    }
}

/// Pages of one inode in the kernel's page cache.
package enum PageSelection: Sendable {
    case none, all
    /// The pages of these bytes.
    case range(Range<Int>)
}
