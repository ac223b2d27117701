import AsyncHTTPClient
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1

/// A request that was sent, and its answer. Only one task at a time may take the answer. Dropping the exchange before
/// the answer's end closes its connection.
final class HTTPExchange: Sendable {
    private let receiver: HTTPReceiver
    private let task: HTTPClient.Task<Void>

    /// Sends the request.
    ///
    /// - Parameter timeout: how long the head of the answer may take once the request is sent.
    init(_ request: HTTPClient.Request, to client: HTTPClient, timeout: TimeAmount) {
        receiver = HTTPReceiver(timeout: timeout)
        task = client.execute(request: request, delegate: receiver)
    }

    deinit {
        task.cancel()
        // The client reports its end only after the pieces before it were taken.
        receiver.giveUp()
    }

    /// Waits for the head of the answer. When the head announces a small body, waits for the body too.
    ///
    /// - Throws: errors of the client, also when the task is cancelled.
    func head() async throws -> HTTPResponseHead {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { receiver.wait(.head($0)) }
        } onCancel: {
            task.cancel()
        }
    }

    /// Waits for the next piece of the body; nil at its end. To be called after ``head()``.
    ///
    /// - Throws: errors of the client, also when the task is cancelled.
    func next() async throws -> ByteBuffer? {
        if let piece = receiver.pieceAtHand() { return piece }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { receiver.wait(.piece($0)) }
        } onCancel: {
            task.cancel()
        }
    }

    /// Whether the head has arrived.
    var isAnswered: Bool { receiver.isAnswered }
}

/// Receives an answer from the client's event loop. It uses the older of AsyncHTTPClient's two interfaces. The newer
/// one uses a task of Swift's global pool for each request and wakes it for each step, which made small files arrive a
/// twelfth slower.
private final class HTTPReceiver: HTTPClientResponseDelegate {
    enum Waiter {
        case head(CheckedContinuation<HTTPResponseHead, any Error>)
        case piece(CheckedContinuation<ByteBuffer?, any Error>)
    }

    private struct State {
        var head: HTTPResponseHead?
        /// The head alone is of no use: the reader gets it together with the rest of the answer.
        var isSmall = false
        var pieces = CircularBuffer<ByteBuffer>(initialCapacity: 2)
        /// The number of bytes in `pieces`.
        var buffered = 0
        /// Set while the connection is paused; to be fulfilled when there is room for more pieces.
        var room: EventLoopPromise<Void>?
        var end: Result<Void, any Error>?
        /// The exchange was dropped, so pieces are thrown away.
        var isGivenUp = false
        var waiter: Waiter?
        /// Ends the request when its answer does not begin in time.
        var timer: Scheduled<Void>?

        /// Takes the next piece; nil when there is none, or none yet.
        mutating func takePiece() -> ByteBuffer? {
            guard let piece = pieces.popFirst() else { return nil }
            buffered -= piece.readableBytes
            return piece
        }

        /// Takes the promise that lets more pieces arrive, when it can be fulfilled now.
        mutating func takeRoom() -> EventLoopPromise<Void>? {
            guard buffered < HTTPReceiver.maxBuffered || end != nil else { return nil }
            defer { room = nil }
            return room
        }

        /// Takes the waiter, if it can be answered now. Returns the call that answers it.
        mutating func takeAnswer() -> (() -> Void)? {
            switch waiter {
            case .head(let continuation):
                if case .failure(let error) = end, head == nil || isSmall {
                    waiter = nil
                    return { continuation.resume(throwing: error) }
                }
                guard let head, end != nil || !isSmall else { return nil }
                waiter = nil
                return { continuation.resume(returning: head) }
            case .piece(let continuation):
                let piece = takePiece()
                let end: Result<ByteBuffer?, any Error>? = end?.map { nil }
                guard let next = piece.map({ .success($0) }) ?? end else { return nil }
                waiter = nil
                return { continuation.resume(with: next) }
            case nil: return nil
            }
        }
    }

    /// Bodies up to this size, in bytes, are small: waiting for each piece would cost more than holding them.
    private static let small = 128 << 10
    /// While so many bytes are buffered, no more are read from the connection.
    private static let maxBuffered = 512 << 10
    private let timeout: TimeAmount
    private let state = NIOLockedValueBox(State())

    init(timeout: TimeAmount) { self.timeout = timeout }

    var isAnswered: Bool { state.withLockedValue { $0.head != nil } }

    // MARK: The taking side

    func wait(_ waiter: Waiter) {
        change { $0.waiter = waiter }
    }

    /// Takes a piece that has arrived; nil when there is none yet.
    func pieceAtHand() -> ByteBuffer? {
        let (piece, room) = state.withLockedValue { ($0.takePiece(), $0.takeRoom()) }
        room?.succeed()
        return piece
    }

    func giveUp() {
        change { state in
            state.isGivenUp = true
            state.pieces.removeAll()
            state.buffered = 0
        }
    }

    /// Changes the state, and answers the waiter if possible.
    private func change(_ body: (inout State) -> Void) {
        let (answer, room) = state.withLockedValue { state -> ((() -> Void)?, EventLoopPromise<Void>?) in
            body(&state)
            return (state.takeAnswer(), state.takeRoom())
        }
        answer?()
        room?.succeed()
    }

    // MARK: The client's side, on the event loop

    func didSendRequestHead(task: HTTPClient.Task<Void>, _ head: HTTPRequestHead) {
        let timer = task.eventLoop.scheduleTask(in: timeout) { task.fail(reason: HTTPClientError.deadlineExceeded) }
        state.withLockedValue { $0.timer = timer }
    }

    func didReceiveHead(task: HTTPClient.Task<Void>, _ head: HTTPResponseHead) -> EventLoopFuture<Void> {
        let length = head.headers.first(name: "Content-Length").flatMap { Int(digits: $0) }
        cancelTimer()
        change { state in
            state.head = head
            state.isSmall = length.map { $0 <= Self.small } ?? false
        }
        return task.eventLoop.makeSucceededVoidFuture()
    }

    func didReceiveBodyPart(task: HTTPClient.Task<Void>, _ piece: ByteBuffer) -> EventLoopFuture<Void> {
        var room: EventLoopPromise<Void>?
        change { state in
            if state.isGivenUp { return }
            state.pieces.append(piece)
            state.buffered += piece.readableBytes
            guard state.buffered >= Self.maxBuffered else { return }
            room = task.eventLoop.makePromise()
            state.room = room
        }
        return room?.futureResult ?? task.eventLoop.makeSucceededVoidFuture()
    }

    func didReceiveError(task: HTTPClient.Task<Void>, _ error: any Error) { end(.failure(error)) }

    func didFinishRequest(task: HTTPClient.Task<Void>) { end(.success(())) }

    private func end(_ result: Result<Void, any Error>) {
        cancelTimer()
        change { state in
            if state.end == nil { state.end = result }
        }
    }

    /// The timer is cancelled outside of the lock, because that calls the event loop.
    private func cancelTimer() { state.withLockedValue { $0.timer.take() }?.cancel() }
}
