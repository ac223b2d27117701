import FaultServers
import HSMCore
import Testing

@testable import HSMRemotes

/// Every number that a store says, at its ends and beyond: an answer, nil or an error, and never the end of the process.
@Suite struct ExtremeNumbersTests {
    private static let nanoseconds = 0..<1_000_000_000

    @Test(arguments: Extremes.numbers)
    func `sizes and times of a listing`(number: String) {
        for size in [number, "1"] {
            guard let page = try? BucketPage(BucketPageTests.page(BucketPageTests.object("a", size: size))) else {
                continue
            }
            #expect(page.objects.allSatisfy { $0.size >= 0 })
        }
        for text in [
            "\(number)-02-03T04:05:06Z", "2001-\(number)-03T04:05:06Z", "2001-02-\(number)T04:05:06Z",
            "2001-02-03T\(number):05:06Z", "2001-02-03T04:\(number):06Z", "2001-02-03T04:05:\(number)Z",
        ] {
            guard let time = RemoteEntry.Time(iso8601: text) else { continue }
            #expect(Self.nanoseconds.contains(time.nanoseconds) && abs(time.seconds) < 1 << 48, "\(text)")
        }
    }

    @Test(arguments: Extremes.numbers)
    func `metadata of an object`(number: String) throws {
        for name in ["mtime", "mode", "uid", "gid", "ctime"] {
            // A header has neither control characters nor letters beyond ASCII's.
            let head = try ObjectHeadTests.head([("x-amz-meta-\(name)", number), ("x-amz-meta-mode", number)])
            #expect((head.metadata.permissions ?? 0) <= 0o7777)
            if let time = head.metadata.modificationTime { #expect(Self.nanoseconds.contains(time.nanoseconds)) }
            let isNumber = !number.isEmpty && number.utf8.allSatisfy { (0x30...0x39).contains($0) }
            #expect(isNumber || head.metadata.owner == nil && head.metadata.group == nil)
        }
    }

    @Test(arguments: Extremes.numbers)
    func `the end of credentials`(number: String) {
        for text in [number, "\(number)-01-01T00:00:00Z", "2030-01-01T\(number):00:00Z"] {
            let json = #"{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": "\#(text)"}"#
            _ = TemporaryCredentials(json: Array(json.utf8), version: 1)
        }
    }

    @Test func `an object that no file system can hold is its own error, and no other's`() throws {
        let large = BucketPageTests.object("a", size: "18446744073709551616") + BucketPageTests.object("b", size: "1")
        #expect(try BucketPage(BucketPageTests.page(large)).objects.map(\.size) == [.max, 1])
    }
}
