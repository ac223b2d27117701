import HSMRemotes
import HSMSystem
import Testing

@Suite struct BucketAddressTests {
    @Test(arguments: [
        ("s3://data", "s3://data/"), ("S3://data/a//b%20c", "s3://data/a/b%20c/"),
        (
            "s3://data/p?style=path&endpoint=http://h:9000&region=eu&profile=w",
            "s3://data/p/?endpoint=http%3A//h%3A9000/&profile=w&region=eu&style=path"
        ),
    ])
    func `equal places have equal URLs`(_ argument: String, _ url: String) throws {
        let location = try RemoteLocation(argument)
        #expect(location.url == url)
        #expect(try RemoteLocation(url) == location)
    }

    @Test(arguments: [
        ("s3://data", "https://data.s3.eu-x.amazonaws.com/"), ("s3://da.ta", "https://s3.eu-x.amazonaws.com/da.ta/"),
        ("s3://data?region=r", "https://data.s3.r.amazonaws.com/"),
        ("s3://data?style=path", "https://s3.eu-x.amazonaws.com/data/"),
        ("s3://data?endpoint=http://h:1/x", "http://h:1/x/data/"),
        ("s3://data?endpoint=http://h:1&style=virtual", "http://data.h:1/"),
    ])
    func `a bucket is named by path or as a host`(_ argument: String, _ base: String) throws {
        #expect(try BucketAddress(BytePath(argument)).base(region: "eu-x").url == base)
    }

    @Test(arguments: BucketAddress.options)
    func `an option without a value is refused, because no address with it could be read again`(_ option: String) throws
    {
        var location = try RemoteLocation("s3://data")
        let error = #expect(throws: LocationError.self) { try location.set([(option, "")]) }
        #expect(error?.description == "--\(option) has no value")
    }

    @Test(arguments: [
        ("s3://", "bucket's name"), ("s3://a", "bucket's name"), ("s3://da ta", "bucket's name"),
        ("s3://data/%zz", "%25"), ("s3://data/a/../b", ".."), ("s3://data?x=y", "x is unknown"),
        ("s3://data?style=odd", "odd"),
        ("s3://data?endpoint=/tmp", "endpoint"), ("s3://data?region=", "no value"),
        ("s3://user:p@data", "bucket's name"), ("s3://data?endpoint=http://h/%FF", "UTF-8"),
        ("s3://data?region=%FF", "UTF-8"),
    ])
    func `what is no bucket is refused with the reason`(_ argument: String, _ reason: String) {
        let error = #expect(throws: LocationError.self) { _ = try RemoteLocation(argument) }
        #expect(error?.description.contains(reason) == true, "\(error?.description ?? "")")
    }
}
