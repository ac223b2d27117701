import HSMCore
import NIOHTTP1

extension FillError {
    /// The error for an answer without content.
    ///
    /// 404 and 410 become `.remoteGone`. 412 to a conditional request, and 416, become `.remoteChanged`. 401, 403 and
    /// 407 have the code `.permission` and are not tried again. Every other status becomes `.remoteFailed`, with the
    /// pause of Retry-After. 502, 503 and 504 without Retry-After count as an outage: the server behind the one that
    /// answers is down.
    package init(status: HTTPResponseStatus, _ headers: HTTPHeaders, _ key: RemoteKey, isConditional: Bool) {
        let cause = "\(key): the server answers \(status.code) \(status.reasonPhrase)"
        switch status.code {
        case 404, 410: self.init(.io, .remoteGone, cause)
        case 412 where isConditional: self.init(.io, .remoteChanged, cause)
        case 416 where isConditional: self.init(.io, .remoteChanged, cause)
        case 401, 403, 407: self.init(.permission, .remoteFailed, cause)
        default:
            let pause = Self.retryAfter(headers)
            // A server that names a time to come back is not down.
            let isOutage = pause == nil && (502...504).contains(status.code)
            self.init(.io, .remoteFailed, cause, retryAfter: pause, isOutage: isOutage)
        }
    }

    /// Retry-After in seconds or as a date (RFC 9110, section 10.2.3).
    private static func retryAfter(_ headers: HTTPHeaders) -> Duration? {
        guard let text = headers.first(name: "Retry-After") else { return nil }
        if let seconds = Int(digits: text) { return .seconds(min(seconds, 1 << 30)) }
        guard let then = HTTPDate.seconds(text), let date = headers.first(name: "Date"),
            let now = HTTPDate.seconds(date)
        else { return nil }
        return .seconds(max(0, then - now))
    }

    /// The error for a missing answer, or one that broke off. Never `.remoteGone`: a server that cannot be reached may
    /// still have the object.
    ///
    /// - Parameter isOutage: no answer came at all.
    package init(transport error: any Error, _ url: String, isOutage: Bool = false) {
        if error is CancellationError || Task.isCancelled {
            self = .cancelledRead
            return
        }
        self.init(.io, .remoteFailed, "\(url): \(TransportCause.text(error))", isOutage: isOutage)
    }
}
