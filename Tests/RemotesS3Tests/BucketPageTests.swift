import HSMCore
import Testing

@testable import HSMRemotes

@Suite struct BucketPageTests {
    static func page(_ inside: String) -> [UInt8] {
        Array(
            """
            <?xml version="1.0" encoding="UTF-8"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>\(inside)</ListBucketResult>
            """.utf8)
    }

    static func object(_ key: String, etag: String = "&quot;e&quot;", size: String = "3") -> String {
        """
        <Contents><Key>\(key)</Key><LastModified>2001-02-03T04:05:06.789Z</LastModified><ETag>\(etag)</ETag>\
        <Size>\(size)</Size><Owner><ID>x</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>
        """
    }

    @Test func `a page tells keys, versions, sizes, times, and how to go on`() throws {
        let text =
            Self.object("a&amp;b&lt;&#x20AC;&#10;") + "<IsTruncated>true</IsTruncated>"
            + Self.object("+c%20", size: "0")
            + "<NextContinuationToken>t/=</NextContinuationToken>"
        let page = try BucketPage(Self.page(text))
        #expect(page.objects.map { String(decoding: $0.key, as: UTF8.self) } == ["a&b<€\n", "+c%20"])
        #expect(page.objects[0].tag == "\"e\"")
        #expect(page.objects[0].modified == .init(seconds: 981_173_106, nanoseconds: 789_000_000))
        #expect(page.objects.map(\.size) == [3, 0])
        #expect(page.nextToken == "t/=")
        let encoded = try BucketPage(
            Self.page("<EncodingType>url</EncodingType>" + Self.object("a+b%2B%0A%C3%A4", etag: "e")))
        #expect(encoded.objects[0].key == Array("a b+\nä".utf8))
        #expect(encoded.objects[0].tag == "\"e\"")
        #expect(encoded.nextToken == nil)
        #expect(
            try BucketPage(Self.page("<Contents/><KeyCount>0</KeyCount>".replacing("<Contents/>", with: ""))).objects
                .isEmpty)
    }

    @Test(arguments: [
        "", "<html><title>x</title></html>", "<ListBucketResult><Contents>", "<ListBucketResult></Contents>",
        "<ListBucketResult><Key>x</Key></ListBucketResult><ListBucketResult>", "not xml at all",
        "<Error><Code>AccessDenied</Code></Error>",
    ])
    func `anything else is not taken for an empty bucket`(_ text: String) {
        #expect(throws: FillError.self) { try BucketPage(Array(text.utf8)) }
    }

    @Test(arguments: [
        "<IsTruncated>true</IsTruncated>", object("", etag: "e"), object("a", etag: ""), object("a", size: "x"),
        object("a", size: "-1"), "<Contents><Key>a</Key></Contents>", object("a&bogus;"),
        "<EncodingType>url</EncodingType>" + object("%zz"),
    ])
    func `a page that leaves something out is refused`(_ inside: String) {
        #expect(throws: FillError.self) { try BucketPage(Self.page(inside)) }
    }

    @Test func `CDATA, comments, and > in attributes are XML's`() throws {
        let text = Self.object("<![CDATA[a&<b>]]>c<!-- > <Key>x</Key> -->d").replacing(
            "<Contents>", with: "<Contents a='x>y' b=\"/Contents>\">")
        #expect(try BucketPage(Self.page(text)).objects.map(\.key) == [Array("a&<b>cd".utf8)])
    }

    @Test func `a document type is refused, whatever it says`() {
        let start = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">]>"
        for start in ["<!DOCTYPE x>", start] {
            let page = Array(start.utf8) + Self.page(Self.object("a")).drop { $0 != 0x3e }.dropFirst()
            #expect(throws: FillError.self) { try BucketPage(page) }
        }
    }

    @Test func `elements in elements cost no more than their bytes`() {
        // An error's body is read up to 64 KiB; of each element its path was kept.
        let depth = 9000
        let deep = Array((String(repeating: "<a>", count: depth) + String(repeating: "</a>", count: depth)).utf8)
        #expect(XMLElements(deep) == nil)
        let wide = "<a>" + String(repeating: "<b/>", count: 16_000) + "</a>"
        #expect(XMLElements(Array(wide.utf8)) == nil)
        let long = String(repeating: "n", count: 60_000)
        #expect(XMLElements(Array("<a><\(long)></\(long)></a>".utf8)) == nil)
        let error = "<Error><Code>NoSuchKey</Code><Message>x</Message></Error>"
        #expect(XMLElements(Array(error.utf8))?.text("Error/Code") == "NoSuchKey")
    }

    @Test(arguments: [
        ("1700000000", 1_700_000_000, 0), ("1700000000.123456789", 1_700_000_000, 123_456_789), ("0.5", 0, 500_000_000),
        ("-1.5", -2, 500_000_000), ("-1", -1, 0), ("12.1234567899", 12, 123_456_789),
    ])
    func `times have nine digits behind the point`(_ text: String, _ seconds: Int, _ nanoseconds: Int) {
        #expect(RemoteEntry.Time(decimal: text) == .init(seconds: seconds, nanoseconds: nanoseconds))
    }

    @Test(arguments: ["", "x", "1.2.3", "1e5", "1,5", ".5", "--1", "99999999999999999999", "1.-5"])
    func `anything else is no time`(_ text: String) {
        #expect(RemoteEntry.Time(decimal: text) == nil)
        #expect(RemoteEntry.Time(iso8601: text) == nil)
    }
}
